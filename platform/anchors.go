package platform

import (
	"crypto/x509"
	"errors"
	"fmt"
)

// TrustOnMachine makes a private root trusted for e-mail, and for nothing else, by
// everybody on this machine; it says whether the root was not there before. It is
// for the service, and for whoever administers the machine: [ErrDenied] for
// others. A root that is there already, by group policy for instance, is left as
// it is. [ErrUnsupported] where each user's store has a trust of its own, see
// [Truster].
func TrustOnMachine(anchor *x509.Certificate) (added bool, err error) {
	if err := checkAnchor(anchor); err != nil {
		return false, err
	}
	added, err = trustOnMachine(anchor)
	if err != nil {
		return false, fmt.Errorf("trust %q on this machine: %w", anchor.Subject.CommonName, err)
	}
	return added, nil
}

// checkAnchor refuses what a root of the machine must never be: trust in a leaf
// or in somebody's intermediate cannot be taken back by revoking it.
func checkAnchor(anchor *x509.Certificate) error {
	if !anchor.IsCA || !anchor.BasicConstraintsValid {
		return errors.New("the anchor is no certificate of a CA")
	}
	if err := anchor.CheckSignatureFrom(anchor); err != nil {
		return fmt.Errorf("the anchor is no root: %w", err)
	}
	return nil
}
