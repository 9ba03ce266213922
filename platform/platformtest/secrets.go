package platformtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"smime-agent/platform"
)

// Secrets is a secret store in memory. The zero value is empty and ready.
type Secrets struct {
	// Fail, if set, may refuse an operation ("get", "put", "delete").
	Fail func(op string) error

	mu     sync.Mutex
	values map[string][]byte
}

var _ platform.SecretStore = (*Secrets)(nil)

var secretName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

// Get gives a copy.
func (s *Secrets) Get(ctx context.Context, name string) ([]byte, error) {
	if err := s.begin(ctx, "get", name); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.values[name]
	if !ok {
		return nil, fmt.Errorf("read secret %q: %w", name, platform.ErrNotFound)
	}
	return bytes.Clone(value), nil
}

// Put keeps a copy.
func (s *Secrets) Put(ctx context.Context, name string, value []byte) error {
	if err := s.begin(ctx, "put", name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = map[string][]byte{}
	}
	s.values[name] = append([]byte{}, value...)
	return nil
}

// Delete forgets the secret.
func (s *Secrets) Delete(ctx context.Context, name string) error {
	if err := s.begin(ctx, "delete", name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, name)
	return nil
}

func (s *Secrets) begin(ctx context.Context, op, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !secretName.MatchString(name) {
		return fmt.Errorf("%s secret %q: %w: a secret's name has only a-z, 0-9 and -", op, name, platform.ErrUnsupported)
	}
	if s.Fail == nil {
		return nil
	}
	return s.Fail(op)
}

// TestSecrets holds a secret store to its promises. open is called more than
// once in one subtest and must then open the same store again; each subtest
// gets its own t, and may get its own store.
func TestSecrets(t *testing.T, open func(t *testing.T) platform.SecretStore) {
	t.Run("round trip", func(t *testing.T) { testSecretRoundTrip(t, open) })
	t.Run("names", func(t *testing.T) { testSecretNames(t, open) })
	t.Run("copies", func(t *testing.T) { testSecretCopies(t, open) })
	t.Run("ended context", func(t *testing.T) { testSecretContext(t, open) })
	t.Run("at once", func(t *testing.T) { testSecretsAtOnce(t, open) })
}

func testSecretRoundTrip(t *testing.T, open func(t *testing.T) platform.SecretStore) {
	s, ctx := open(t), t.Context()
	if _, err := s.Get(ctx, "device-key"); !errors.Is(err, platform.ErrNotFound) {
		t.Fatalf("Get of nothing: %v, want ErrNotFound", err)
	}
	if err := s.Delete(ctx, "device-key"); err != nil {
		t.Fatalf("Delete of nothing: %v", err)
	}
	for _, value := range [][]byte{[]byte("first"), {}, {0, 1, 0xff, '\n'}, bytes.Repeat([]byte("x"), 100_000), []byte("last")} {
		if err := s.Put(ctx, "device-key", value); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(ctx, "device-key"); err != nil || !bytes.Equal(got, value) {
			t.Fatalf("Get after Put of %d bytes: %d bytes, %v", len(value), len(got), err)
		}
	}
	again := open(t)
	if got, err := again.Get(ctx, "device-key"); err != nil || string(got) != "last" {
		t.Fatalf("after opening again: %q, %v", got, err)
	}
	if err := again.Delete(ctx, "device-key"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, "device-key"); !errors.Is(err, platform.ErrNotFound) {
		t.Fatalf("Get after Delete: %v, want ErrNotFound", err)
	}
}

func testSecretNames(t *testing.T, open func(t *testing.T) platform.SecretStore) {
	s, ctx := open(t), t.Context()
	for _, name := range []string{"", ".", "..", "../x", "a/b", `a\b`, "A", "ä", "a b", "-a", "a\x00", ".hidden", strings.Repeat("a", 65)} {
		if err := s.Put(ctx, name, []byte("v")); err == nil {
			t.Errorf("Put took the name %q", name)
		}
		if _, err := s.Get(ctx, name); err == nil {
			t.Errorf("Get took the name %q", name)
		}
		if err := s.Delete(ctx, name); err == nil {
			t.Errorf("Delete took the name %q", name)
		}
	}
	if err := s.Put(ctx, strings.Repeat("a", 64), []byte("v")); err != nil {
		t.Errorf("Put with a name of 64 letters: %v", err)
	}
}

func testSecretCopies(t *testing.T, open func(t *testing.T) platform.SecretStore) {
	s, ctx := open(t), t.Context()
	value := []byte("secret")
	if err := s.Put(ctx, "token", value); err != nil {
		t.Fatal(err)
	}
	clear(value)
	got, err := s.Get(ctx, "token")
	if err != nil || string(got) != "secret" {
		t.Fatalf("the store kept the caller's slice: %q, %v", got, err)
	}
	clear(got)
	if got, err = s.Get(ctx, "token"); err != nil || string(got) != "secret" {
		t.Fatalf("the store gave its own slice away: %q, %v", got, err)
	}
}

func testSecretContext(t *testing.T, open func(t *testing.T) platform.SecretStore) {
	s := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, "token", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Put with an ended context: %v", err)
	}
}

// testSecretsAtOnce: readers see one of the values, whole, while writers replace it.
func testSecretsAtOnce(t *testing.T, open func(t *testing.T) platform.SecretStore) {
	s, ctx := open(t), t.Context()
	a, b := bytes.Repeat([]byte("a"), 20_000), bytes.Repeat([]byte("b"), 30_000)
	if err := s.Put(ctx, "token", a); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for _, value := range [][]byte{a, b} {
		group.Go(func() {
			for range 20 {
				if err := s.Put(ctx, "token", value); err != nil {
					t.Error(err)
				}
			}
		})
		group.Go(func() {
			for range 40 {
				got, err := s.Get(ctx, "token")
				if err != nil || (!bytes.Equal(got, a) && !bytes.Equal(got, b)) {
					t.Errorf("read %d bytes that nobody wrote, %v", len(got), err)
				}
			}
		})
	}
	group.Wait()
}
