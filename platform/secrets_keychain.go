package platform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"smime-agent/platform/internal/security"
)

// passwords are items of a keychain by account, all of one service. What is not
// there is [security.ItemNotFound], what is there already
// [security.DuplicateItem].
type passwords interface {
	get(account string) ([]byte, error)
	add(account string, data []byte) error
	update(account string, data []byte) error
	remove(account string) error
}

// keychainSecrets keeps each secret as an item of a keychain. On macOS that of
// root is the System keychain.
type keychainSecrets struct {
	// turn: an item that is updated while it is read may be told as missing.
	turn  sync.Mutex
	items passwords
}

// secretForm begins each item: the library does not tell an empty item from
// none, and a later form can be told from this one.
const secretForm = 1

// maxKeychainSecret is far above any key or token, in bytes.
const maxKeychainSecret = 1 << 20

func (s *keychainSecrets) Get(ctx context.Context, name string) ([]byte, error) {
	var value []byte
	err := s.call(ctx, "read", name, func() error {
		data, err := s.items.get(name)
		if err != nil {
			return err
		}
		if len(data) == 0 || data[0] != secretForm {
			return fmt.Errorf("an item of %d bytes that is none of ours", len(data))
		}
		value = bytes.Clone(data[1:])
		return nil
	})
	return value, err
}

// Put changes an item that is there: a new one would lose the rights that an
// administrator gave.
func (s *keychainSecrets) Put(ctx context.Context, name string, value []byte) error {
	return s.call(ctx, "keep", name, func() error {
		if len(value) > maxKeychainSecret {
			return fmt.Errorf("it is longer than %d bytes", maxKeychainSecret)
		}
		data := append([]byte{secretForm}, value...)
		err := s.items.update(name, data)
		if !errors.Is(err, security.ItemNotFound) {
			return err
		}
		err = s.items.add(name, data)
		if errors.Is(err, security.DuplicateItem) { // somebody else was faster
			return s.items.update(name, data)
		}
		return err
	})
}

func (s *keychainSecrets) Delete(ctx context.Context, name string) error {
	return s.call(ctx, "delete", name, func() error {
		err := s.items.remove(name)
		if errors.Is(err, security.ItemNotFound) {
			return nil
		}
		return err
	})
}

func (s *keychainSecrets) call(ctx context.Context, what, name string, do func() error) error {
	err := ctx.Err()
	if err == nil && !validSecret(name) {
		err = fmt.Errorf("%w: a secret's name has only a-z, 0-9 and -", ErrUnsupported)
	}
	if err == nil {
		s.turn.Lock()
		err = do()
		s.turn.Unlock()
	}
	if err != nil {
		return fmt.Errorf("%s secret %q: %w", what, name, keychainSentinel(err))
	}
	return nil
}

// validSecret holds names to letters, digits and dashes, 1 to 64 of them.
func validSecret(name string) bool {
	for i, r := range name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && (r != '-' || i == 0) {
			return false
		}
	}
	return name != "" && len(name) <= 64
}
