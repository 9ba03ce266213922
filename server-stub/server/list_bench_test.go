package server

import (
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/roster"
	"smime-agent/server-stub/store"
	"smime-agent/server-stub/store/pgtest"
	"smime-agent/server-stub/store/postgres"
)

// BenchmarkListFleet goes through a fleet of 100,000 devices that are known but
// idle, page by page up to the octets of each answer, as "devices" has it do, and looks for one by its name.
func BenchmarkListFleet(b *testing.B) {
	db, err := store.OpenBolt(filepath.Join(b.TempDir(), "records.db"))
	if err != nil {
		b.Fatal(err)
	}
	benchListFleet(b, db)
}

// BenchmarkListFleetPostgres is the same over PostgreSQL on the same machine.
func BenchmarkListFleetPostgres(b *testing.B) {
	db, err := postgres.Open(b.Context(), postgres.Config{DSN: pgtest.Start(b).Database(b)})
	if err != nil {
		b.Fatal(err)
	}
	benchListFleet(b, db)
}

func benchListFleet(b *testing.B, db store.Store) {
	const n = 100_000
	b.Cleanup(func() { _ = db.Close() })
	s := &Server{store: db, now: time.Now, fleet: newFleet()}
	for from := 0; from < n; from += 5000 {
		err := db.Update(b.Context(), func(tx store.Tx) error { return putFleet(tx, from, from+5000) })
		if err != nil {
			b.Fatal(err)
		}
	}
	b.Run("memory", func(b *testing.B) { benchIdleMemory(b, s, n) })
	for name, row := range map[string]struct {
		req  *controlv1.ListDevicesRequest
		want int
	}{
		"all":  {req: &controlv1.ListDevicesRequest{}, want: n},
		"find": {req: &controlv1.ListDevicesRequest{Matches: "host-099999"}, want: 1},
		"page": {req: &controlv1.ListDevicesRequest{State: store.Admitted, PageSize: 100}, want: 100},
	} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				got := 0
				for req := proto.CloneOf(row.req); ; {
					resp, err := (&admin{Server: s}).ListDevices(b.Context(), req)
					if err != nil {
						b.Fatal(err)
					}
					wire, err := proto.Marshal(resp)
					if err != nil {
						b.Fatal(err)
					}
					got += devicesIn(b, wire)
					if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" || name == "page" {
						break
					}
				}
				if got != row.want {
					b.Fatalf("%d devices, want %d", got, row.want)
				}
			}
			if len(s.fleet.devices) != 0 {
				b.Errorf("%d devices are kept in memory for a listing", len(s.fleet.devices))
			}
		})
	}
}

// benchIdleMemory says what the heap holds for each device once the whole fleet
// was listed.
func benchIdleMemory(b *testing.B, s *Server, n int) {
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	before := heap()
	for range b.N {
		for req := (&controlv1.ListDevicesRequest{}); ; {
			_, next, err := s.page(req)
			if err != nil {
				b.Fatal(err)
			}
			if req.PageToken = next; next == "" {
				break
			}
		}
	}
	b.ReportMetric((heap()-before)/float64(n), "heap-B/device")
}

// devicesIn counts the devices of an answer as it goes over the wire.
func devicesIn(b *testing.B, wire []byte) int {
	n := 0
	for len(wire) > 0 {
		number, _, length := protowire.ConsumeField(wire)
		if length < 0 {
			b.Fatal(protowire.ParseError(length))
		}
		if number == 1 {
			n++
		}
		wire = wire[length:]
	}
	return n
}

func putFleet(tx store.Tx, from, to int) error {
	for i := from; i < to; i++ {
		id := fmt.Sprintf("%024x", i)
		device := store.Device{ID: id, State: store.Admitted, Joined: time.Unix(int64(i), 0), Hostname: fmt.Sprintf("host-%06d", i), OS: "linux", Identity: make([]byte, 450)}
		if err := store.PutJSON(tx, store.Devices, []byte(id), device); err != nil {
			return err
		}
		report, err := proto.Marshal(&controlv1.SyncRequest{
			Users:       []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}},
			Credentials: []*controlv1.CredentialReport{{EnrollmentId: id, Mailbox: "alice@example.com", State: "active", Proof: &controlv1.ProofReport{Ok: true}}},
		})
		if err != nil {
			return err
		}
		if err := roster.PutReport(tx, device, report, time.Unix(int64(i), 0)); err != nil {
			return err
		}
	}
	return nil
}
