package platformtest_test

import (
	"errors"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

func TestMemoryStore(t *testing.T) {
	store := platformtest.NewStore("memory")
	platformtest.TestStore(t, func(*testing.T) platform.Store { return store },
		platformtest.StoreTests{PSS: true, OAEP: true, Agree: true})
}

func TestMemoryStoreFails(t *testing.T) {
	errPlanted := errors.New("planted")
	for _, moment := range []string{"before", "half", "after"} {
		t.Run(moment, func(t *testing.T) {
			failing := true
			store := platformtest.NewStore("memory")
			store.Fail = func(op string) error {
				if failing && op == "create:"+moment {
					return errPlanted
				}
				return nil
			}
			id, spec := platformtest.NewID(t), platform.KeySpec{Algorithm: platform.P256, Sign: true}
			if _, err := store.Create(t.Context(), id, spec); !errors.Is(err, errPlanted) {
				t.Fatalf("Create: %v, want the planted error", err)
			}
			failing = false
			infos, err := store.Keys(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got, want := len(infos), map[string]int{"before": 0, "half": 1, "after": 1}[moment]; got != want {
				t.Errorf("%d keys are left, want %d", got, want)
			}
			if moment == "half" && infos[0].Public != nil {
				t.Error("half a key has a public part")
			}
			_, err = store.Create(t.Context(), id, spec)
			if wantExists := moment == "after"; errors.Is(err, platform.ErrExists) != wantExists || err != nil && !wantExists {
				t.Errorf("Create again: %v", err)
			}
			if _, err := store.Open(t.Context(), id); err != nil {
				t.Errorf("Open: %v", err)
			}
		})
	}
}
