// Package glibc asks the C library of Linux for what no standard has.
package glibc
