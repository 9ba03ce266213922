//go:build cgo || windows

package platform

import (
	"errors"
	"fmt"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"smime-agent/platform/internal/pkcs11"
)

// TestUnlockNeverBlocks: the session has no module behind it, so any attempt
// to log in would panic.
func TestUnlockNeverBlocks(t *testing.T) {
	const ready = p11.CKF_TOKEN_INITIALIZED | p11.CKF_LOGIN_REQUIRED | p11.CKF_USER_PIN_INITIALIZED
	for name, c := range map[string]struct {
		flags uint
		want  error
	}{
		"last try":   {ready | p11.CKF_USER_PIN_COUNT_LOW | p11.CKF_USER_PIN_FINAL_TRY, ErrLocked},
		"blocked":    {ready | p11.CKF_USER_PIN_LOCKED, ErrLocked},
		"no PIN yet": {p11.CKF_TOKEN_INITIALIZED | p11.CKF_LOGIN_REQUIRED, ErrLocked},
		"PIN pad":    {ready | p11.CKF_PROTECTED_AUTHENTICATION_PATH, ErrUnsupported},
		"no login":   {p11.CKF_TOKEN_INITIALIZED, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := &tokenStore{pin: newPINKeeper(nil)}
			ss := &pkcs11.Session{Token: pkcs11.Token{Label: "card", Flags: c.flags}}
			if err := s.unlock(ss, access{private: true}, "1234", true); !errors.Is(err, c.want) {
				t.Errorf("unlock: %v, want %v", err, c.want)
			}
		})
	}
}

func TestSentinels(t *testing.T) {
	for code, want := range map[uint]error{
		p11.CKR_TOKEN_NOT_PRESENT:          ErrLocked,
		p11.CKR_PIN_LOCKED:                 ErrLocked,
		p11.CKR_PIN_INCORRECT:              ErrLocked,
		p11.CKR_SESSION_READ_ONLY:          ErrDenied,
		p11.CKR_TOKEN_WRITE_PROTECTED:      ErrDenied,
		p11.CKR_KEY_FUNCTION_NOT_PERMITTED: ErrDenied,
		p11.CKR_MECHANISM_INVALID:          ErrUnsupported,
		p11.CKR_FUNCTION_NOT_SUPPORTED:     ErrUnsupported,
		0xCE534351:                         ErrDenied,
		p11.CKR_GENERAL_ERROR:              nil,
		p11.CKR_DEVICE_ERROR:               nil,
		p11.CKR_OBJECT_HANDLE_INVALID:      nil,
	} {
		err := sentinel(fmt.Errorf("try: %w", pkcs11.Code(code)))
		for _, s := range []error{ErrNotFound, ErrExists, ErrLocked, ErrDenied, ErrUnsupported} {
			if errors.Is(err, s) != errors.Is(want, s) {
				t.Errorf("code %#x: %v, want %v", code, err, want)
			}
		}
		if found, ok := errors.AsType[pkcs11.Code](err); !ok || uint(found) != code {
			t.Errorf("code %#x is not in the chain any more: %v", code, err)
		}
	}
}
