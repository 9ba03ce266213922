//go:build cgo || windows

package pkcs11

import (
	"errors"

	p11 "github.com/miekg/pkcs11"
)

// errNoToken stands for a token that is not plugged in; some modules say so by
// an error, some by leaving it out of the list.
var errNoToken = Code(p11.CKR_TOKEN_NOT_PRESENT)

// ErrMachine is a library that was built for another kind of processor.
var ErrMachine = errors.New("built for another kind of processor")

// Class sorts the modules' error codes.
type Class string

// The classes. Whatever has none may go away by itself.
const (
	Absent      Class = "absent"      // the token is not plugged in
	Locked      Class = "locked"      // a PIN or a login is needed, or it was wrong
	Denied      Class = "denied"      // the token refuses
	Unsupported Class = "unsupported" // the token cannot do it
	Failed      Class = "failed"      // the token does not say why; it may go away
	Unreadable  Class = "unreadable"  // the data to decrypt is not what the key made
)

// cKRCurveNotSupported is missing in the binding (PKCS #11 v2.40 errata, v3.0).
const cKRCurveNotSupported = 0x140

// cKRNSSKeyDBFailed is NSS's CKR_NSS_KEYDB_FAILED; C_Initialize answers the
// code before it (CKR_NSS_CERTDB_FAILED) for a folder that is missing or not
// permitted.
const (
	cKRNSSCertDBFailed = 0xCE534351
	cKRNSSKeyDBFailed  = 0xCE534352
)

// classes is the one table from codes to classes.
var classes = map[Code]Class{
	p11.CKR_TOKEN_NOT_PRESENT: Absent,
	p11.CKR_SLOT_ID_INVALID:   Absent,
	p11.CKR_DEVICE_REMOVED:    Absent,

	p11.CKR_PIN_INCORRECT:            Locked,
	p11.CKR_PIN_INVALID:              Locked,
	p11.CKR_PIN_LEN_RANGE:            Locked,
	p11.CKR_PIN_EXPIRED:              Locked,
	p11.CKR_PIN_LOCKED:               Locked,
	p11.CKR_USER_NOT_LOGGED_IN:       Locked,
	p11.CKR_USER_PIN_NOT_INITIALIZED: Locked,

	p11.CKR_TOKEN_WRITE_PROTECTED:      Denied,
	p11.CKR_SESSION_READ_ONLY:          Denied,
	p11.CKR_ATTRIBUTE_READ_ONLY:        Denied,
	p11.CKR_ATTRIBUTE_SENSITIVE:        Denied,
	p11.CKR_KEY_FUNCTION_NOT_PERMITTED: Denied,
	p11.CKR_KEY_UNEXTRACTABLE:          Denied,
	cKRNSSCertDBFailed:                 Denied,
	cKRNSSKeyDBFailed:                  Denied,

	p11.CKR_MECHANISM_INVALID:       Unsupported,
	p11.CKR_MECHANISM_PARAM_INVALID: Unsupported,
	p11.CKR_FUNCTION_NOT_SUPPORTED:  Unsupported,
	p11.CKR_KEY_SIZE_RANGE:          Unsupported,
	p11.CKR_KEY_TYPE_INCONSISTENT:   Unsupported,
	p11.CKR_DOMAIN_PARAMS_INVALID:   Unsupported,
	cKRCurveNotSupported:            Unsupported,

	p11.CKR_GENERAL_ERROR:   Failed,
	p11.CKR_FUNCTION_FAILED: Failed,
	p11.CKR_DEVICE_ERROR:    Failed,

	p11.CKR_ENCRYPTED_DATA_INVALID:   Unreadable,
	p11.CKR_ENCRYPTED_DATA_LEN_RANGE: Unreadable,
	p11.CKR_DATA_INVALID:             Unreadable,
	p11.CKR_DATA_LEN_RANGE:           Unreadable,
}

// ClassOf finds a module's code in err's chain and gives its class, or "".
func ClassOf(err error) Class {
	code, _ := errors.AsType[Code](err)
	return classes[code]
}

// PINIncorrect says that the token looked at the PIN and refused it.
func PINIncorrect(err error) bool {
	return is(err, p11.CKR_PIN_INCORRECT) || is(err, p11.CKR_PIN_INVALID) || is(err, p11.CKR_PIN_LEN_RANGE)
}

// LoginMayHelp says that an operation failed for want of a login. The TPM
// stack calls its session read-only when a certificate is filed without one.
func LoginMayHelp(err error) bool {
	return is(err, p11.CKR_USER_NOT_LOGGED_IN) || is(err, p11.CKR_SESSION_READ_ONLY)
}

func is(err error, code uint) bool {
	found, ok := errors.AsType[Code](err)
	return ok && uint(found) == code
}
