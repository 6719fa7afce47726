"""Forged diaries of a queue: what it can do wrong, written into those of one that did nothing.

As forgery.py: the judgement must tell of a good queue nothing, and of each forgery its name.
"""

from functools import partial

from pylog.stress.forgery import Forgery

# Of the queue that is ordered, three messages of one key. Worker 501 does the first, 502 gives the
# second one back, which 501 does, and 502 the third.
GOOD = """\
500 put 10 1 0 3 0
500 put 11 1 0 3 1
500 put 12 1 0 3 2
501 want 20 1 1 3 0
501 got 21 1 1 3 0
501 ask 22 1 1 3 0
501 done 23 1 1 3 0
502 want 30 1 1 3 1
502 got 31 1 1 3 1
502 back 32 1 1 3 1
501 want 40 1 2 3 1
501 got 41 1 2 3 1
501 ask 42 1 2 3 1
501 done 43 1 2 3 1
502 want 50 1 1 3 2
502 got 51 1 1 3 2
502 ask 52 1 1 3 2
502 done 53 1 1 3 2
"""
ENDS = {1: 3}    # of the queue
BACK = "502 back 32 1 1 3 1\n"
DONE = "502 done 53 1 1 3 2\n"

_forgery = partial(Forgery, good=GOOD)
FORGERIES = (
    _forgery("lost-message", "the last message is given to nobody", 0,
             (("502 want 50 1 1 3 2\n502 got 51 1 1 3 2\n502 ask 52 1 1 3 2\n" + DONE, ""),)),
    _forgery("lost-message", "the last message is done, and was not acknowledged", 0,
             (("502 ask 52 1 1 3 2\n" + DONE, ""),)),
    _forgery("lost-message", "the one acknowledgement was refused, and the message is done", 0,
             ((DONE, "502 refused 53 1 1 3 2\n"),)),
    _forgery("delivered-after-ack", "the last message comes again", 501,
             ((DONE, DONE + "501 want 60 1 2 3 2\n501 got 61 1 2 3 2\n"),)),
    _forgery("two-holders", "the second message goes to another before it is given back", 501,
             ((BACK, "502 back 44 1 1 3 1\n"),)),
    _forgery("two-holders", "the second message goes to another, and nobody gave it back", 501,
             ((BACK, ""),)),
    _forgery("zombie-ack", "who has lost the second message acknowledges it", 502,
             ((BACK, "502 ask 44 1 1 3 1\n502 done 45 1 1 3 1\n"),), frozenset({"two-holders"})),
    _forgery("out-of-key-order", "the third message comes before the second is done", 502,
             (("502 want 50 1 1 3 2\n502 got 51", "502 want 33 1 1 3 2\n502 got 34"),)),
)
