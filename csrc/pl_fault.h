/* Named points at which a test may stop the world. Nothing in a release build.
 *
 * The C drivers under tests/c are built with -DPL_FAULT and define pl_fault_point(), which may
 * kill, stop or count; and pl_fault_errno(), which may make the next system call fail.
 */
#ifndef PL_FAULT_H
#define PL_FAULT_H

#ifdef PL_FAULT
void pl_fault_point(const char *name);
int pl_fault_errno(const char *call); /* 0, or the errno with which this call is to fail */
#define PL_POINT(name) pl_fault_point(name)
#define PL_FAIL_HERE(call) pl_fault_errno(call)
#else
#define PL_POINT(name) ((void)0)
#define PL_FAIL_HERE(call) 0
#endif

#endif
