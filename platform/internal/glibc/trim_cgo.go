//go:build linux && cgo

package glibc

/*
#include <stddef.h>

// Other C libraries do not have it.
extern int malloc_trim(size_t pad) __attribute__((weak));

static void trim(void) {
	if (malloc_trim) malloc_trim(0);
}
*/
import "C"

// Trim gives the free memory of malloc's arenas back to the system (malloc_trim(3)).
// A driver's library leaves some in an arena of each thread that called it.
func Trim() { C.trim() }
