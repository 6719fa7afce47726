"""Forged diaries of delays, times to live and dedup keys: what a queue can do wrong with them.

As forgery.py: the judgement must tell of the good ones nothing, and of each forgery its name.
"""

from functools import partial

from pylog.stress.forgery import Forgery

P = 500 << 24    # messages are numbered by who puts them; times are ns, delays and lives us

# Process 500 puts four messages: one with a delay of 0.1 s, one that lives for 0.1 s, and two with
# the key 7, of which the second is refused. 501 takes and acknowledges the three.
GOOD = f"""\
500 post 10 {P + 1} 100000 -1 -1
500 posted 11 {P + 1} 1 0 -1
500 post 12 {P + 2} 0 100000 -1
500 posted 13 {P + 2} 1 0 -1
500 post 14 {P + 3} 0 -1 7
500 posted 15 {P + 3} 1 0 -1
500 post 16 {P + 4} 0 -1 7
500 posted 17 {P + 4} 0 0 -1
501 reach 20 {P + 2} 1 0 0
501 take 21 {P + 2} 1 0 0
501 settle 22 {P + 2} 1 0 0
501 settled 23 {P + 2} 1 0 0
501 reach 24 {P + 3} 1 0 1
501 take 25 {P + 3} 1 0 1
501 settle 26 {P + 3} 1 0 1
501 settled 27 {P + 3} 1 0 1
501 reach 28 {P + 1} 1 0 2
501 take 100000030 {P + 1} 1 0 2
501 settle 100000031 {P + 1} 1 0 2
501 settled 100000032 {P + 1} 1 0 2
"""
ENDS = {0: 3}    # of the queue
DELAYED = f"501 take 100000030 {P + 1} 1 0 2\n"
LIVING = f"501 reach 20 {P + 2} 1 0 0\n501 take 21 {P + 2} 1 0 0\n" \
         f"501 settle 22 {P + 2} 1 0 0\n501 settled 23 {P + 2} 1 0 0\n"
KEYED = LIVING.replace(f"{P + 2} 1 0 0", f"{P + 3} 1 0 1").replace(" 20 ", " 24 ").replace(
    " 21 ", " 25 ").replace(" 22 ", " 26 ").replace(" 23 ", " 27 ")
REFUSED = f"500 posted 17 {P + 4} 0 0 -1\n"

_forgery = partial(Forgery, good=GOOD)
FORGERIES = (
    _forgery("delivered-early", "a delayed message comes at half its time", 501,
             ((DELAYED, DELAYED.replace("100000030", "50000030")),)),
    _forgery("delivered-expired", "a message comes after twice its time to live", 501,
             ((f"501 reach 20 {P + 2}", f"501 reach 200000020 {P + 2}"),
              (f"501 take 21 {P + 2}", f"501 take 200000021 {P + 2}"),
              (f"501 settle 22 {P + 2}", f"501 settle 200000022 {P + 2}"),
              (f"501 settled 23 {P + 2}", f"501 settled 200000023 {P + 2}"))),
    _forgery("duplicate-put", "a second message with a key is added", 500,
             ((REFUSED, f"500 posted 17 {P + 4} 1 0 -1\n501 settle 34 {P + 4} 1 0 3\n"),)),
    _forgery("duplicate-put", "a second message is refused, and comes", 500,
             ((REFUSED, REFUSED + f"501 reach 33 {P + 4} 1 0 3\n501 take 34 {P + 4} 1 0 3\n"),)),
    _forgery("lost-message", "a delayed message is never brought", 500,
             ((f"501 reach 28 {P + 1} 1 0 2\n" + DELAYED, ""),
              (f"501 settle 100000031 {P + 1} 1 0 2\n501 settled 100000032 {P + 1} 1 0 2\n", ""))),
    _forgery("lost-message", "a message without a time to live is a dead letter", 500,
             ((KEYED, f"502 letter 40 {P + 3} 0 0 -1\n"),)),
    _forgery("lost-message", "both messages with a key are refused", 500,
             ((f"500 posted 15 {P + 3} 1", f"500 posted 15 {P + 3} 0"), (KEYED, ""))),
    _forgery("delivered-after-ack", "a message that was acknowledged comes again", 501,
             ((LIVING, LIVING + f"501 reach 30 {P + 2} 2 0 0\n501 take 31 {P + 2} 2 0 0\n"),)),
)
