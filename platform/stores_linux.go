package platform

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// stores gives the tokens that policy names first, for they may be hardware,
// then NSS's databases, for mail programs look there, and the files last.
func stores(ctx context.Context, o StoreOptions) ([]Store, error) {
	home := o.Home
	if home == "" {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			return nil, fmt.Errorf("find home folder: %w", err)
		}
	}
	tokens, err1 := moduleStores(ctx, o)
	databases, err2 := nssStores(home, o.PIN)
	list := append(tokens, databases...)
	return append(list, newFileStore(home)), errors.Join(err1, err2)
}
