// Package local is the service's local API: a named pipe or a Unix socket, never
// TCP. It answers the command line, and borrows the sessions that the users'
// helpers lend. Who calls is what the kernel says of the connection; no message
// can claim it. See rules.go for who may call what.
package local
