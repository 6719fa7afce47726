/* Named points at which a test may stop the world. Nothing in a release build.
 *
 * The C drivers under tests/c are built with -DPL_FAULT and define pl_fault_point(), which may
 * kill, stop or count. System calls are made to fail without a word in here: see tests/c/calls.h.
 */
#ifndef PL_FAULT_H
#define PL_FAULT_H

#ifdef PL_FAULT
void pl_fault_point(const char *name);
#define PL_POINT(name) pl_fault_point(name)
#else
#define PL_POINT(name) ((void)0)
#endif

#endif
