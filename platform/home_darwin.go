package platform

import (
	"fmt"
	"os"
)

func homeOf(o StoreOptions) (string, error) {
	if o.Home != "" {
		return o.Home, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find home folder: %w", err)
	}
	return home, nil
}
