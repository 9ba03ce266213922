package platform

import (
	"crypto/x509"
	"errors"

	"smime-agent/platform/internal/wincrypt"
)

// trustOnMachine files the root in LocalMachine\Root, restricted to e-mail: a
// company's S/MIME root has no business with web sites or programs.
func trustOnMachine(anchor *x509.Certificate) (bool, error) {
	there, err := machineHas(anchor)
	if err != nil || there {
		return false, err
	}
	s, err := wincrypt.OpenMachineStore(wincrypt.Root)
	if err != nil {
		return false, windowsError(err)
	}
	if err := errors.Join(s.AddAnchor(anchor.Raw, "S/MIME "+anchor.Subject.CommonName), s.Close()); err != nil {
		return false, windowsError(err)
	}
	there, err = machineHas(anchor)
	if err == nil && !there {
		err = errors.New("the root is not there after it was filed")
	}
	return err == nil, err
}

// machineHas looks through a store opened afresh, in which the roots of group
// policy and of Windows' own program are seen too.
func machineHas(anchor *x509.Certificate) (bool, error) {
	s, err := wincrypt.OpenMachineStore(wincrypt.Root)
	if err != nil {
		return false, windowsError(err)
	}
	list, err := s.List()
	if err := errors.Join(err, s.Close()); err != nil {
		return false, windowsError(err)
	}
	_, there := entryOf(list, anchor)
	return there, nil
}
