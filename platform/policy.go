package platform

// PolicyValue is one value of managed policy as the system keeps it.
type PolicyValue struct {
	Name string
	// Text is the value, a number in decimal; Items, if not nil, a list instead.
	Text  string
	Items []string
	// Number says that the value is a number, which also stands for yes and no.
	Number bool
	// Odd says that the value is of a kind that no setting has.
	Odd bool
}

// Policy is what the system keeps at one place.
type Policy struct {
	Values []PolicyValue
	// Private says that no other user can read it.
	Private bool
}

// ReadPolicy reads what the system's own management (group policy, MDM) has put
// at a place, in the order of names. [ErrUnsupported] where managed policy is a
// folder of files, [ErrNotFound] if there is none, [ErrDenied] if other than
// administrators can have written it.
func ReadPolicy(place string) (Policy, error) { return readPolicy(place) }
