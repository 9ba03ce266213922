package local

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"smime-agent/agent/enroll"
	localv1 "smime-agent/proto/local/v1"
)

func TestASessionCannotSpeakForTheMachine(t *testing.T) {
	for _, code := range []string{"machine-cloned", "record-failed", "control-unreachable", "request-refused", "", "\x1b[2J"} {
		e := toError(&localv1.Failure{Kind: "waiting", Code: code, Hint: "Call 555.\x1b[2J\nNow"})
		if e.Code != enroll.CodeInternal || e.Hint != "Call 555.[2J Now" {
			t.Errorf("%q: %+v", code, e)
		}
	}
	if e := toError(&localv1.Failure{Kind: "deadly", Code: "store-locked"}); e.Kind != enroll.Transient || e.Code != enroll.CodeStoreLocked {
		t.Errorf("%+v", e)
	}
}

func TestNoteInTheHelpersLanguage(t *testing.T) {
	texts := map[string]string{"en": "E", "zh-CN": "Z", "de": "D"}
	for locale, want := range map[string]string{"zh-Hans-SG": "Z", "de-AT": "D", "en-GB": "E", "fr": "E", "": "E", "!": "E"} {
		if got := note(texts, locale); got != want {
			t.Errorf("%q: %q", locale, got)
		}
	}
	if note(nil, "en") != "" || note(map[string]string{"x!": "only"}, "en") != "only" {
		t.Error("edge")
	}
}

func TestFailuresSurviveBrokenText(t *testing.T) {
	f := fromError(errors.New("system said \xff\xfe"))
	if _, err := proto.Marshal(f); err != nil {
		t.Error(err)
	}
}

// FuzzAttachRequest reads whatever a hostile helper may send.
func FuzzAttachRequest(f *testing.F) {
	for _, m := range []*localv1.AttachRequest{
		{Message: &localv1.AttachRequest_Hello{Hello: &localv1.Hello{Version: "v", Locale: "en", Upn: "u"}}},
		{Message: &localv1.AttachRequest_Changed{}},
		{Message: &localv1.AttachRequest_Result{Result: &localv1.TaskResult{TaskId: 1, What: &localv1.TaskResult_Inventory{Inventory: fromInventory(found)}}}},
		{Message: &localv1.AttachRequest_Result{Result: &localv1.TaskResult{TaskId: 1, What: &localv1.TaskResult_Prove{Prove: fromProof(proof)}}}},
		{Message: &localv1.AttachRequest_Result{Result: &localv1.TaskResult{TaskId: 1, What: &localv1.TaskResult_Prepare{Prepare: fromMailAccounts(mail)}}}},
		{Message: &localv1.AttachRequest_Result{Result: &localv1.TaskResult{TaskId: 1, Failure: fromError(errors.New("x"))}}},
	} {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m localv1.AttachRequest
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		r := newRemote("en")
		answer := make(chan *localv1.TaskResult, 1)
		r.expect(answer)
		r.deliver(m.GetResult())
		r.deliver(m.GetResult())
		e := toError(m.GetResult().GetFailure())
		texts := []string{e.Hint, toProof(m.GetResult().GetProve()).Failure}
		for _, s := range toInventory(m.GetResult().GetInventory()).Stores {
			texts = append(texts, s.Name)
		}
		accounts, _ := toMailAccounts(m.GetResult().GetPrepare().GetAccounts())
		for _, a := range accounts {
			texts = append(texts, a.Program, a.Title, a.ID, a.Detail)
		}
		for _, s := range texts {
			if strings.ContainsFunc(s, unicode.IsControl) || utf8.RuneCountInString(s) > sentence {
				t.Errorf("%q", s)
			}
		}
	})
}

// FuzzTask reads whatever a newer or broken service may send to a helper.
func FuzzTask(f *testing.F) {
	for _, task := range []*localv1.Task{
		requestTask(enroll.RequestWanted{ID: "smime-1", Modules: modules}), inventoryTask(modules),
		askTask(enroll.Question{Note: map[string]string{"en": "x"}}, "en"), notifyTask(enroll.Notice{}),
		installTask(enroll.InstallWanted{}), proveTask(enroll.ProofWanted{}), discardTask("s", "smime-1", nil),
		prepareTask(enroll.PrepareWanted{}), {},
	} {
		raw, err := proto.Marshal(task)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var task localv1.Task
		if proto.Unmarshal(raw, &task) != nil {
			return
		}
		if r := work(t.Context(), newMemory(), &task, "en"); r.GetTaskId() != task.GetId() {
			t.Error(r)
		}
	})
}
