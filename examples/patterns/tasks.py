"""Async tasks: the upload is answered at once, the video is transcoded later, progress is seen.

    python examples/patterns/tasks.py

Here the worker is a thread; `pylog run videos:app --workers 4` makes it processes.
"""

import tempfile
import time

from pylog.patterns import App, Retry, current_task


def main() -> None:
    with tempfile.TemporaryDirectory(dir=".") as data, App(f"{data}/videos") as app:
        @app.task(retry=Retry(attempts=3, backoff=0.1), timeout=3600)
        def transcode(video, formats):
            for number, name in enumerate(formats, 1):
                time.sleep(0.05)    # hard work
                current_task().progress(number / len(formats), f"{name} done")
            return [f"{video}.{name}.mp4" for name in formats]

        def upload(video):    # POST /api/videos
            task = transcode.send(video, formats=["720p", "1080p", "4K"])
            return {"videoId": video, "status": "processing", "task": task.id}

        answer = upload("v1")
        print(answer["videoId"], answer["status"])
        app.start()
        task = app.result(answer["task"])    # GET /api/videos/v1, in any process
        for status in task.watch(timeout=30):
            print(f"{status.state} {status.progress:.0%} {status.message}")
        print(task.result())


if __name__ == "__main__":
    main()
