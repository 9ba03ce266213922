package platform

// Handover is a secret that an installer left for the service.
type Handover struct {
	Text string
	// Exposed says that other users could read it where it lay.
	Exposed bool
}

// TakeHandover takes what lies at a place of [Paths]. It hands it to keep, and
// removes it, with the place, once keep has it safe: after a crash in between it
// comes again. [ErrNotFound] if nothing is there; [ErrDenied] if other users can
// have written it, and then it is removed all the same. keep's error is returned
// as it is, and nothing is removed.
func TakeHandover(place string, keep func(Handover) error) error { return takeHandover(place, keep) }
