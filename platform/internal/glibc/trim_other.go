//go:build linux && !cgo

// Package glibc asks the C library for what no standard has.
package glibc

// Trim does nothing: there is no C library.
func Trim() {}
