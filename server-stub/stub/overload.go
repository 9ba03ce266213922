package stub

import (
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"smime-agent/server-stub/refusal"
	"smime-agent/server-stub/store"
)

// Overloaded gives what a server answers that has too much to do, for
// [Options.Fault], and when it wants the caller back.
func Overloaded() (retry time.Duration, err error) {
	err, _ = refusal.Status(store.ErrOverloaded)
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			retry = info.GetRetryDelay().AsDuration()
		}
	}
	return retry, err
}
