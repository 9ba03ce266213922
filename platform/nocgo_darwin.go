//go:build !cgo

package platform

import (
	"context"
	"fmt"
)

// errNoKeychain is for a program built without cgo.
var errNoKeychain = fmt.Errorf("the keychain is not built into this program, because it was built without cgo: %w", ErrUnsupported)

func lacking() error { return errNoKeychain }

func secrets(string) (SecretStore, error) { return nil, errNoKeychain }

func stores(_ context.Context, o StoreOptions) ([]Store, error) {
	home, err := homeOf(o)
	if err != nil {
		return nil, err
	}
	return []Store{newFileStore(home)}, errNoKeychain
}

func mailPrograms(o MailOptions) []MailProgram { return []MailProgram{ownThunderbird(o)} }
