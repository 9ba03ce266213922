package audit_test

import (
	"fmt"
	"slices"
	"testing"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/audit"
)

// TestCredentials: what differs in what is believed is told, and nothing else.
func TestCredentials(t *testing.T) {
	of := func(id, protection string, proof *controlv1.ProofReport) *controlv1.CredentialReport {
		return &controlv1.CredentialReport{EnrollmentId: id, Protection: protection, Proof: proof}
	}
	good, failed := &controlv1.ProofReport{Ok: true, Decrypts: true}, &controlv1.ProofReport{Failure: "no key"}
	signs := &controlv1.ProofReport{Ok: true, Signs: true}
	list := func(c ...*controlv1.CredentialReport) *controlv1.SyncRequest {
		return &controlv1.SyncRequest{Credentials: c}
	}
	for name, c := range map[string]struct {
		before, after *controlv1.SyncRequest
		want          string
	}{
		"first, not proved":  {nil, list(of("a", "software", nil)), ""},
		"first, proved":      {nil, list(of("a", "software", good)), "a none good - software ;"},
		"proved":             {list(of("a", "software", nil)), list(of("a", "software", good)), "a none good software software ;"},
		"proved again":       {list(of("a", "software", good)), list(of("a", "software", &controlv1.ProofReport{Ok: true, Decrypts: true, Signs: true})), ""},
		"failed":             {list(of("a", "hardware", good)), list(of("a", "hardware", failed)), "a good failed hardware hardware ;"},
		"decrypts no more":   {list(of("a", "hardware", good)), list(of("a", "hardware", signs)), "a good signs-only hardware hardware ;"},
		"protection":         {list(of("a", "hardware", good)), list(of("a", "software", good)), "a good good hardware software ;"},
		"protection is told": {list(of("a", "", nil)), list(of("a", "software", nil)), ""},
		"gone":               {list(of("a", "hardware", good), of("b", "hardware", good)), list(of("b", "hardware", good)), "a good gone hardware hardware ;"},
		"gone, not proved":   {list(of("a", "hardware", nil)), list(), ""},
		"twice in a report":  {list(of("a", "", good), of("a", "", failed)), list(), "a failed gone - - ;"},
	} {
		got := ""
		for _, line := range audit.Credentials(c.before, c.after) {
			facts := map[any]any{}
			for pair := range slices.Chunk(line, 2) {
				facts[pair[0]] = pair[1]
			}
			for _, key := range []string{"enrollment", "proof_before", "proof", "protection_before", "protection"} {
				if facts[key] == "" {
					facts[key] = "-"
				}
				got += fmt.Sprint(facts[key], " ")
			}
			got += ";"
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
