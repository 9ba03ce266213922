package stub_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/server"
	"smime-agent/server-stub/stub"
)

// retryOf gives the wait of google.rpc.RetryInfo; 0 without one.
func retryOf(err error) time.Duration {
	for _, detail := range status.Convert(err).Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			return retry.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// TestOverload: of 100 devices that submit at the same moment, each over a TLS
// connection of its own, more come than calls may be under way. These are
// refused at once, are told when to come back, and not all at the same time; an
// administrator gets through, and so does a call that is held open. Everybody who
// comes again gets one certificate.
func TestOverload(t *testing.T) {
	const most, devices = 8, 100
	hold, entered := make(chan struct{}), make(chan struct{}, devices)
	s := start(t, stub.Options{Settings: server.Settings{Calls: most}, Fault: func(method string) error {
		if method == "Submit" {
			select {
			case entered <- struct{}{}:
			default:
			}
			<-hold
		}
		return nil
	}})
	var release sync.Once
	t.Cleanup(func() { release.Do(func() { close(hold) }) })
	text := token(t, s, &controlv1.CreateTokenRequest{MaxUses: devices})
	fleet := make([]*device, devices)
	orders := make([]*controlv1.SubmitRequest, devices)
	for i := range fleet {
		fleet[i] = join(t, s, text)
		fleet[i].syncAs(t, alice())
		orders[i] = submission(enrollmentID(i), csr(t, p256(t)))
	}
	results := make(chan error, devices)
	for i, d := range fleet {
		go func() { _, err := d.Submit(t.Context(), orders[i]); results <- err }()
	}
	for range most {
		<-entered
	}
	waits := map[time.Duration]bool{}
	for range devices - most {
		err := <-results
		wantReason(t, err, "OVERLOADED")
		wait := retryOf(err)
		if waits[wait] = true; status.Code(err) != codes.ResourceExhausted || wait < 5*time.Second || wait > 15*time.Second {
			t.Errorf("refused with %v, to come back in %v", err, wait)
		}
	}
	if len(waits) < devices/2 {
		t.Errorf("%d different waits: those who were refused together come back together", len(waits))
	}
	if _, err := s.Admin.ListDevices(t.Context(), &controlv1.ListDevicesRequest{}); err != nil {
		t.Errorf("an administrator gets %v", err)
	}
	if _, err := fleet[0].Await(t.Context(), &controlv1.AwaitRequest{MaxWait: durationpb.New(time.Millisecond)}); err != nil {
		t.Errorf("a held call gets %v", err)
	}
	release.Do(func() { close(hold) })
	for range most {
		if err := <-results; err != nil {
			t.Errorf("who was let in gets %v", err)
		}
	}
	comeAgain(t, fleet, orders)
	entries := map[string]int{}
	for _, e := range ledger(t, s) {
		entries[e.GetEnrollmentId()]++
	}
	for _, order := range orders {
		if n := entries[order.GetEnrollmentId()]; n != 1 {
			t.Errorf("%s has %d certificates", order.GetEnrollmentId(), n)
		}
	}
	if len(entries) != devices {
		t.Errorf("%d enrollments for %d devices", len(entries), devices)
	}
}

// comeAgain has all submit once more, those who are refused again and again.
func comeAgain(t *testing.T, fleet []*device, orders []*controlv1.SubmitRequest) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for i, d := range fleet {
		wg.Go(func() {
			for {
				resp, err := d.Submit(ctx, orders[i])
				if status.Code(err) == codes.ResourceExhausted {
					time.Sleep(time.Millisecond)
					continue
				}
				if err != nil || resp.GetOutcome().GetIssued() == nil {
					t.Errorf("device %d gets %v, %v", i, resp, err)
				}
				return
			}
		})
	}
	wg.Wait()
}

// TestSameSubmitAtOnce: a submission that is sent many times at once is one
// certificate, and all answers have it.
func TestSameSubmitAtOnce(t *testing.T) {
	const rounds, copies = 10, 16
	s := start(t, stub.Options{PolicyYAML: policyOf("auto", "new-key")})
	d := join(t, s, token(t, s, &controlv1.CreateTokenRequest{}))
	d.syncAs(t, alice())
	for round := range rounds {
		order := submission(enrollmentID(round), csr(t, p256(t)))
		answers := make([]*controlv1.SubmitResponse, copies)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() {
				var err error
				if answers[i], err = d.Submit(t.Context(), order); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		wg.Wait()
		for _, a := range answers {
			if a.GetReference() != answers[0].GetReference() || !issued(t, a.GetOutcome()).Equal(issued(t, answers[0].GetOutcome())) {
				t.Fatalf("round %d: answers %v and %v", round, a, answers[0])
			}
		}
	}
	if n := len(ledger(t, s)); n != rounds {
		t.Errorf("%d certificates for %d submissions", n, rounds)
	}
}
