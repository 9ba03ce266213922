//go:build linux && !cgo

package glibc

// Trim does nothing: there is no C library.
func Trim() {}
