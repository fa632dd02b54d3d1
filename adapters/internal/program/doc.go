// Package program starts a program on a node as JSDL has it, and sees to its end:
// exactly its arguments, environment and files, its limits at its first instruction,
// all of its process tree gone when it is, and a sentence where it can't be started or
// was stopped. It is what an adapter's runner does on the nodes of a manager; it knows
// of no manager and keeps nothing.
//
// The process that calls Run must do nothing else: it becomes the parent of every
// orphan of the program, and its signals are the program's.
package program
