//go:build !cgo

package platform

import (
	"context"
	"fmt"
)

// errNoTokens is for a program built without cgo, which cannot load modules.
var errNoTokens = fmt.Errorf("this build has no PKCS #11, so NSS databases and tokens cannot be used: %w", ErrUnsupported)

func moduleStores(context.Context, StoreOptions) ([]Store, error) { return nil, errNoTokens }

func nssStores(string, PINFunc) ([]Store, error) { return nil, nil }

func addressBooksOf([]Store) []AddressBook { return nil }
