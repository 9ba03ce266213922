//go:build !windows

package platform

import "crypto/x509"

// On Linux each user's NSS has a trust of its own. macOS changes the trust of the
// machine only after a person has agreed in a dialog; a profile of the MDM does
// without.
func trustOnMachine(*x509.Certificate) (bool, error) { return false, ErrUnsupported }
