"""`pylog stress`: processes that write and read a log under faults, and a checker that watches.

Every record checks itself (csrc/pl_stamp.h), every producer keeps a ledger outside the log, one
pass compares the two, and whatever differs has a name in anomalies.py. Start with stage.py: it says
what happens in a run.
"""
