package store_test

import (
	"path/filepath"
	"testing"

	"smime-agent/server-stub/store"
	"smime-agent/server-stub/store/storetest"
)

func TestBoltConformance(t *testing.T) {
	storetest.Run(t, func(t testing.TB) storetest.Open {
		path := filepath.Join(t.TempDir(), "records.db")
		return func(t testing.TB) store.Store {
			b, err := store.OpenBolt(path)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	})
}
