package platform

import (
	"context"
	"fmt"
	"os"
)

// addressBooks are the NSS databases: mail programs that keep certificates
// elsewhere (gpgsm) are none that this product serves.
func addressBooks(_ context.Context, o StoreOptions) ([]AddressBook, error) {
	home := o.Home
	if home == "" {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			return nil, fmt.Errorf("find home folder: %w", err)
		}
	}
	stores, err := nssStores(home, o.PIN)
	return addressBooksOf(stores), err
}
