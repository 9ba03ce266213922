//go:build !linux

package platform

// fileWatch is not there yet: these systems look once a minute in any case, to
// notice that the machine was asleep.
type fileWatch struct{}

func (fileWatch) open(func()) error { return ErrUnsupported }
func (fileWatch) follow([]string)   {}
func (fileWatch) close() error      { return nil }
