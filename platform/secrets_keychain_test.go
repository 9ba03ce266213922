package platform_test

import (
	"errors"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/internal/security"
	"smime-agent/platform/platformtest"
)

// TestKeychainSecrets holds the store's logic to its promises over items in
// memory; the real ones are held to the same on a Mac.
func TestKeychainSecrets(t *testing.T) {
	stores := map[string]*platform.MemoryPasswords{}
	platformtest.TestSecrets(t, func(t *testing.T) platform.SecretStore {
		t.Helper()
		if stores[t.Name()] == nil {
			stores[t.Name()] = &platform.MemoryPasswords{}
		}
		return stores[t.Name()].Store()
	})
}

// TestKeychainSecretsRefused: the service cannot be asked, so a refusal is
// "denied" or "locked", and never "not found": that would mean to join anew.
func TestKeychainSecretsRefused(t *testing.T) {
	for status, want := range map[security.Status]error{
		security.AuthFailed: platform.ErrDenied, security.InteractionNotAllowed: platform.ErrLocked, security.ItemNotFound: platform.ErrNotFound,
	} {
		m := &platform.MemoryPasswords{Fail: status}
		if _, err := m.Store().Get(t.Context(), "device-key"); !errors.Is(err, want) || !errors.Is(err, status) {
			t.Errorf("Get at %v: %v", status, err)
		}
		if err := m.Store().Put(t.Context(), "device-key", nil); status != security.ItemNotFound && !errors.Is(err, want) {
			t.Errorf("Put at %v: %v", status, err)
		}
	}
	foreign := &platform.MemoryPasswords{Items: map[string][]byte{"device-key": []byte("somebody else's"), "token": {}}}
	for name := range foreign.Items {
		if got, err := foreign.Store().Get(t.Context(), name); err == nil || errors.Is(err, platform.ErrNotFound) {
			t.Errorf("a foreign item was read: %q, %v", got, err)
		}
	}
}
