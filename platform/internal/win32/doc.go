// Package win32 binds what Windows offers a session and a service and what
// golang.org/x/sys lacks: reading access lists, the caller behind a pipe, DPAPI,
// dialogs, notices. Procedures are looked up when they are first called, so that
// one that is missing breaks one capability and not the program.
package win32
