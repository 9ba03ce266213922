//go:build !linux && !windows && !darwin

package platform

import (
	"context"
	"fmt"
	"os"
)

// stores gives the file store, which works everywhere.
func stores(_ context.Context, o StoreOptions) ([]Store, error) {
	home := o.Home
	if home == "" {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			return nil, fmt.Errorf("find home folder: %w", err)
		}
	}
	return []Store{newFileStore(home)}, nil
}
