"""Async tasks: the upload is answered at once, the video is transcoded later, progress is seen.

    python examples/patterns/tasks.py

A real program has its workers apart from it: `pylog run videos:app --workers 4`.
"""

import tempfile
import time

from pylog.patterns import App, Retry, current_task

app = App(tempfile.mkdtemp())


@app.task(retry=Retry(attempts=3, backoff=0.1), timeout=3600)
def transcode(video, formats):
    """What a worker does."""
    for number, name in enumerate(formats, 1):
        time.sleep(0.1)
        current_task().progress(number / len(formats), f"{name} done")
    return [f"{video}.{name}.mp4" for name in formats]


def upload(video):
    """What the API does: POST /api/videos."""
    task = transcode.send(video, formats=["720p", "1080p", "4K"])
    return {"videoId": video, "status": "processing", "task": task.id}


with app:
    answer = upload("v1")
    print(answer["videoId"], answer["status"])
    app.start()
    task = app.result(answer["task"])    # by its id, in any process: GET /api/videos/v1
    for status in task.watch(timeout=30):
        print(f"{status.state} {status.progress:.0%} {status.message}")
    print(task.result())
