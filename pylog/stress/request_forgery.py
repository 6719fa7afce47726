"""Forged diaries of request-reply: what it can do wrong, written into those of one that did not.

As forgery.py: the judgement must tell of the good one nothing, and of each forgery its name. Times
are ns here, and bounds are seconds: the forged ones come late by thousands of millions.
"""

from functools import partial

from pylog.stress.forgery import Forgery

A, B = 501 << 24, 502 << 24    # requests are numbered by their asker
X, Y = 601 << 24, 602 << 24    # answers by their server
TIMEOUT = 4_000_000            # us
SHORT = 10_000

# Process 501 asks three times: server 601 answers the first, 602 the second, and nobody the third,
# which is short of time and told so. 502 asks once, of 602. 700 looks on.
GOOD = f"""\
501 send 10 {A + 1} {TIMEOUT} 0 -1
501 sent 11 {A + 1} 0 0 -1
501 send 12 {A + 2} {TIMEOUT} 0 -1
501 sent 13 {A + 2} 0 0 -1
501 send 14 {A + 3} {SHORT} 0 -1
501 sent 15 {A + 3} 0 0 -1
502 send 16 {B + 1} {TIMEOUT} 0 -1
502 sent 17 {B + 1} 0 0 -1
501 wait 18 {A + 1} 0 0 -1
601 serve 20 {A + 1} {X + 1} 4 0
601 answer 21 {A + 1} {X + 1} 4 0
602 serve 22 {A + 2} {Y + 1} 4 1
602 answer 23 {A + 2} {Y + 1} 4 1
501 reply 24 {A + 1} {X + 1} 0 {A + 1}
501 wait 25 {A + 2} 0 0 -1
501 reply 26 {A + 2} {Y + 1} 0 {A + 2}
501 wait 27 {A + 3} 0 0 -1
502 wait 28 {B + 1} 0 0 -1
501 over 10000030 {A + 3} 0 0 -1
602 serve 30000040 {B + 1} {Y + 2} 4 3
602 answer 30000041 {B + 1} {Y + 2} 4 3
502 reply 30000042 {B + 1} {Y + 2} 0 {B + 1}
501 count 9000000000 2 0 0 -1
502 count 9000000001 1 0 0 -1
700 there 9100000000 {A + 1} 0 4 0
700 there 9100000001 {A + 2} 0 4 1
700 there 9100000002 {A + 3} 0 4 2
700 there 9100000003 {B + 1} 0 4 3
"""
ENDS = {4: 4}    # of the partition
OF_SECOND = f"501 reply 26 {A + 2} {Y + 1} 0 {A + 2}\n"
SERVED = f"602 serve 22 {A + 2} {Y + 1} 4 1\n602 answer 23 {A + 2} {Y + 1} 4 1\n"
OF_B = f"502 reply 30000042 {B + 1} {Y + 2} 0 {B + 1}\n"
SERVED_B = f"602 serve 30000040 {B + 1} {Y + 2} 4 3\n602 answer 30000041 {B + 1} {Y + 2} 4 3\n"
OVER = f"501 over 10000030 {A + 3} 0 0 -1\n"
OVER_SECOND = f"501 over 4000000030 {A + 2} 0 0 -1\n"
COUNT = "501 count 9000000000 2 0"
COUNT_B = "502 count 9000000001 1 0"

_forgery = partial(Forgery, good=GOOD)
FORGERIES = (
    _forgery("foreign-reply", "an asker is given the reply to its other request", 501,
             ((OF_SECOND, f"501 reply 26 {A + 2} {X + 1} 0 {A + 1}\n"),)),
    _forgery("foreign-reply", "an asker is given the reply to another's request", 502,
             ((OF_B, f"502 reply 30000042 {B + 1} {Y + 1} 0 {A + 2}\n"),)),
    _forgery("invented-reply", "a reply comes, and no server gave it", 501,
             ((OF_SECOND, f"501 reply 26 {A + 2} {Y + 9} 0 {A + 2}\n"),)),
    _forgery("invented-reply", "a reply comes before it is given", 501,
             ((f"602 answer 23 {A + 2}", f"602 answer 27 {A + 2}"),)),
    _forgery("second-reply", "who asks again is given another reply", 501,
             ((OVER, OVER + f"501 wait 10000031 {A + 2} 0 0 -1\n"
               f"501 reply 10000033 {A + 2} {Y + 3} 0 {A + 2}\n"),
              (SERVED, SERVED + SERVED.replace(f"{Y + 1}", f"{Y + 3}"))),
             frozenset({"served-again", "miscounted-reply"})),
    _forgery("late-reply", "a reply is given after the time-out", 501,
             ((OVER, OVER + f"501 wait 10000032 {A + 3} 0 0 -1\n"
               f"601 serve 10000033 {A + 3} {X + 2} 4 2\n601 answer 10000034 {A + 3} {X + 2} 4 2\n"
               f"501 reply 10000036 {A + 3} {X + 2} 0 {A + 3}\n"),
              (COUNT, "501 count 9000000000 3 0"))),
    _forgery("lost-reply", "a server answers, and its reply does not come", 501,
             ((OF_SECOND, OVER_SECOND), (COUNT, "501 count 9000000000 1 1"))),
    _forgery("lost-request", "a server passes a request over", 0,
             ((SERVED, ""), (OF_SECOND, OVER_SECOND), (COUNT, "501 count 9000000000 1 0")),
             frozenset({"stuck-request"})),
    _forgery("lost-request", "a server begins a request and leaves it", 0,
             ((f"602 answer 23 {A + 2} {Y + 1} 4 1\n", ""), (OF_SECOND, OVER_SECOND),
              (COUNT, "501 count 9000000000 1 0"))),
    _forgery("lost-request", "an accepted request is not in the topic", 501,
             ((f"700 there 9100000002 {A + 3} 0 4 2\n", ""),)),
    _forgery("lost-request", "all is done, and a request has time left and was not begun", 0,
             ((SERVED_B, ""), (OF_B, ""), (COUNT_B, "502 count 9000000001 0 0"),
              (f"502 send 16 {B + 1} {TIMEOUT}", f"502 send 16 {B + 1} {5 * TIMEOUT}")),
             frozenset({"stuck-request"})),
    _forgery("served-again", "a server serves what another has served, who lives", 602,
             ((SERVED, SERVED + f"602 serve 24 {A + 1} {Y + 3} 4 0\n"
               f"602 answer 25 {A + 1} {Y + 3} 4 0\n"), (COUNT, "501 count 9000000000 2 1"))),
    _forgery("stuck-request", "a server takes a request after three seconds", 502,
             ((SERVED_B, SERVED_B.replace("300000", "30000000")), (OF_B, OF_B.replace(
                 "300000", "30000000")))),
    _forgery("served-expired", "a request is begun long after its time-out", 601,
             ((OVER, OVER + f"601 serve 1200000000 {A + 3} {X + 2} 4 2\n"
               f"601 answer 1200000001 {A + 3} {X + 2} 4 2\n"),
              (COUNT, "501 count 9000000000 2 1"))),
    _forgery("stuck-asker", "a time-out is told two seconds too late", 501,
             ((OVER, f"501 over 2010000030 {A + 3} 0 0 -1\n"),)),
    _forgery("stuck-asker", "who waits never hears of it", 501, ((OVER, ""),)),
    _forgery("early-time-out", "a time-out is told before its time", 501,
             ((OVER, f"501 over 5000030 {A + 3} 0 0 -1\n"),)),
    _forgery("miscounted-reply", "a reply is counted that was not given", 501,
             ((COUNT, "501 count 9000000000 3 0"),)),
    _forgery("miscounted-reply", "a late reply is counted, and none was given", 501,
             ((COUNT, "501 count 9000000000 2 1"),)),
    _forgery("miscounted-reply", "a late reply is not counted", 501,
             ((OVER, OVER + f"601 serve 10000040 {A + 3} {X + 2} 4 2\n"
               f"601 answer 10000041 {A + 3} {X + 2} 4 2\n"),)),
)
