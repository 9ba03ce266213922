package server

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "smime-agent/proto/control/v1"
)

// TestHeldCalls: the figure of held calls is of those that are held, and goes back
// when they end with nothing new.
func TestHeldCalls(t *testing.T) {
	s, ctx := atWork(t, Config{Store: records(t)})
	held := func() int {
		facts, _ := s.Facts() // there is no list of the root here
		return facts.Held
	}
	ended := make(chan error, 1)
	req := &controlv1.AwaitRequest{MaxWait: durationpb.New(time.Second)}
	resp, err := s.Await(ctx, req) // tells of the policy
	if err != nil || !resp.GetSync() {
		t.Fatalf("%v, %v", resp, err)
	}
	sync, err := s.Sync(ctx, &controlv1.SyncRequest{Users: []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}}})
	if err != nil {
		t.Fatal(err)
	}
	req.PolicyRevision = sync.GetPolicyRevision()
	go func() {
		_, err := s.Await(ctx, req)
		ended <- err
	}()
	for held() == 0 {
		select {
		case err := <-ended:
			t.Fatal("a call was held and not counted: ", err)
		case <-time.After(time.Millisecond):
		}
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if n := held(); n != 0 {
		t.Errorf("%d calls are held after the only one has ended", n)
	}
}
