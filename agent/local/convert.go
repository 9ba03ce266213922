package local

import (
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/language"
	"google.golang.org/protobuf/types/known/timestamppb"

	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	localv1 "smime-agent/proto/local/v1"
)

// sentence is the longest text that a session may give for people, in runes.
const sentence = 500

// plain makes a text from a user's session fit to be stored, logged and shown
// to others: bounded, and without what drives a terminal.
func plain(s string) string {
	s = status.Printable(s)
	n := 0
	for i := range s {
		if n == sentence {
			return s[:i]
		}
		n++
	}
	return s
}

func plainAll(all []string) []string {
	if len(all) == 0 {
		return nil
	}
	made := make([]string, 0, len(all))
	for _, s := range all {
		made = append(made, plain(s))
	}
	return made
}

// odd is a result that does not fit its task.
func odd() error {
	return &enroll.Error{
		Kind: enroll.Transient, Code: enroll.CodeInternal,
		Hint: "The user's session gave an answer that makes no sense. Install the same version of all parts of the agent.",
	}
}

// sessionCodes are what a session may report. The rest is for the service to
// say: a user's process must not be able to raise a condition of the machine.
var sessionCodes = []enroll.Code{
	enroll.CodeUserAbsent, enroll.CodeConsentPending, enroll.CodeConsentPostponed, enroll.CodeConsentDeclined,
	enroll.CodeNobodyToAsk, enroll.CodeStoreMissing, enroll.CodeStoreLocked, enroll.CodeStoreDenied,
	enroll.CodeStoreUnsuitable, enroll.CodeStoreFailed, enroll.CodeKeyMissing, enroll.CodeProofFailed,
	enroll.CodeOldKeyUnusable, enroll.CodeCertificateRejected, enroll.CodeStoreHangs, enroll.CodeInternal,
}

// toError reads a failure. What is not known is [enroll.Transient] and
// [enroll.CodeInternal].
func toError(f *localv1.Failure) *enroll.Error {
	e := &enroll.Error{Kind: enroll.Transient, Code: enroll.CodeInternal, Hint: plain(f.GetHint())}
	switch k := enroll.Kind(f.GetKind()); k {
	case enroll.Transient, enroll.Waiting, enroll.Final:
		e.Kind = k
	}
	if c := enroll.Code(f.GetCode()); slices.Contains(sessionCodes, c) {
		e.Code = c
	}
	if d := plain(f.GetDetail()); d != "" {
		e.Err = errors.New(d)
	}
	return e
}

func fromError(err error) *localv1.Failure {
	e := enroll.AsError(err)
	f := &localv1.Failure{Kind: string(e.Kind), Code: string(e.Code), Hint: wellFormed(e.Hint)}
	if e.Err != nil {
		f.Detail = wellFormed(e.Err.Error())
	}
	return f
}

// wellFormed keeps bytes that are no UTF-8 (a system's own message, say) from
// making the whole message unsendable.
func wellFormed(s string) string { return strings.ToValidUTF8(s, "?") }

func fromTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func toTime(t *timestamppb.Timestamp) time.Time {
	if !t.IsValid() {
		return time.Time{}
	}
	return t.AsTime()
}

func fromModules(modules []enroll.Module) []*localv1.PkcsModule {
	var made []*localv1.PkcsModule
	for _, m := range modules {
		made = append(made, &localv1.PkcsModule{Path: m.Path, TokenLabel: m.TokenLabel})
	}
	return made
}

func toModules(modules []*localv1.PkcsModule) []enroll.Module {
	var made []enroll.Module
	for _, m := range modules {
		made = append(made, enroll.Module{Path: m.GetPath(), TokenLabel: m.GetTokenLabel()})
	}
	return made
}

func inventoryTask(modules []enroll.Module) *localv1.Task {
	return &localv1.Task{What: &localv1.Task_Inventory{Inventory: &localv1.InventoryTask{Modules: fromModules(modules)}}}
}

func requestTask(w enroll.RequestWanted) *localv1.Task {
	return &localv1.Task{What: &localv1.Task_Request{Request: &localv1.RequestTask{
		EnrollmentId: string(w.ID), Store: w.Store, Keys: w.Keys, Mailboxes: w.Mailboxes, DisplayName: w.DisplayName,
		Sign: w.Sign, Encrypt: w.Encrypt, Modules: fromModules(w.Modules), ReuseKeyOf: string(w.ReuseKeyOf),
	}}}
}

func toRequestWanted(t *localv1.RequestTask) enroll.RequestWanted {
	return enroll.RequestWanted{
		ID: enroll.ID(t.GetEnrollmentId()), Store: t.GetStore(), Keys: t.GetKeys(), Mailboxes: t.GetMailboxes(),
		DisplayName: t.GetDisplayName(), Sign: t.GetSign(), Encrypt: t.GetEncrypt(), Modules: toModules(t.GetModules()),
		ReuseKeyOf: enroll.ID(t.GetReuseKeyOf()),
	}
}

func installTask(w enroll.InstallWanted) *localv1.Task {
	return &localv1.Task{What: &localv1.Task_Install{Install: &localv1.InstallTask{
		EnrollmentId: string(w.ID), Store: w.Store, Chain: w.Chain, Trust: w.Trust, Modules: fromModules(w.Modules),
	}}}
}

func toInstallWanted(t *localv1.InstallTask) enroll.InstallWanted {
	return enroll.InstallWanted{
		ID: enroll.ID(t.GetEnrollmentId()), Store: t.GetStore(), Chain: t.GetChain(), Trust: t.GetTrust(),
		Modules: toModules(t.GetModules()),
	}
}

func proveTask(w enroll.ProofWanted) *localv1.Task {
	return &localv1.Task{What: &localv1.Task_Prove{Prove: &localv1.ProveTask{
		EnrollmentId: string(w.ID), Store: w.Store, Mailbox: w.Mailbox, Chain: w.Chain, Anchors: w.Anchors,
		Sign: w.Sign, Encrypt: w.Encrypt, Kept: w.Kept, Modules: fromModules(w.Modules), Now: fromTime(w.Now),
	}}}
}

func toProofWanted(t *localv1.ProveTask) enroll.ProofWanted {
	return enroll.ProofWanted{
		ID: enroll.ID(t.GetEnrollmentId()), Store: t.GetStore(), Mailbox: t.GetMailbox(), Chain: t.GetChain(),
		Anchors: t.GetAnchors(), Sign: t.GetSign(), Encrypt: t.GetEncrypt(), Kept: t.GetKept(), Modules: toModules(t.GetModules()),
		Now: toTime(t.GetNow()),
	}
}

func fromProof(p enroll.Proof) *localv1.ProveResult {
	return &localv1.ProveResult{
		At: fromTime(p.At), Signs: p.Signs, Decrypts: p.Decrypts, ChainOk: p.ChainOK, Algorithms: p.Algorithms,
		Protection: p.Protection, Failure: wellFormed(p.Failure),
	}
}

func toProof(p *localv1.ProveResult) enroll.Proof {
	return enroll.Proof{
		At: toTime(p.GetAt()), Signs: p.GetSigns(), Decrypts: p.GetDecrypts(), ChainOK: p.GetChainOk(),
		Algorithms: plainAll(p.GetAlgorithms()), Protection: plain(p.GetProtection()), Failure: plain(p.GetFailure()),
	}
}

func discardTask(store string, id enroll.ID, modules []enroll.Module) *localv1.Task {
	return &localv1.Task{What: &localv1.Task_Discard{Discard: &localv1.DiscardTask{
		EnrollmentId: string(id), Store: store, Modules: fromModules(modules),
	}}}
}

// askTask takes the note along that the helper's user can read.
func askTask(q enroll.Question, locale string) *localv1.Task {
	return &localv1.Task{What: &localv1.Task_Ask{Ask: &localv1.AskTask{
		EnrollmentId: string(q.ID), Organization: q.Organization, Contact: q.Contact, Mailbox: q.Mailbox,
		Reason: string(q.Reason), Note: note(q.Note, locale), PostponementsLeft: uint32(max(0, min(q.PostponementsLeft, 1<<16))),
		ProgramsAsk: q.ProgramsAsk,
	}}}
}

// note picks the text nearest to a locale; English, if none is near.
func note(texts map[string]string, locale string) string {
	var names []string
	for name := range texts {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { // the matcher's default is the first
		if english := strings.HasPrefix(a, "en"); english != strings.HasPrefix(b, "en") {
			if english {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	if len(names) == 0 {
		return ""
	}
	tags := make([]language.Tag, 0, len(names))
	for _, name := range names {
		tags = append(tags, language.Make(name))
	}
	_, at, _ := language.NewMatcher(tags).Match(language.Make(locale))
	return texts[names[at]]
}

func toQuestion(t *localv1.AskTask, locale string) enroll.Question {
	q := enroll.Question{
		ID: enroll.ID(t.GetEnrollmentId()), Organization: t.GetOrganization(), Contact: t.GetContact(), Mailbox: t.GetMailbox(),
		Reason: enroll.Reason(t.GetReason()), PostponementsLeft: int(t.GetPostponementsLeft()), ProgramsAsk: t.GetProgramsAsk(),
	}
	if t.GetNote() != "" {
		q.Note = map[string]string{locale: t.GetNote()}
	}
	return q
}

func codeTask(q enroll.CodeQuestion) *localv1.Task {
	return &localv1.Task{What: &localv1.Task_Code{Code: &localv1.CodeTask{
		EnrollmentId: string(q.ID), Organization: q.Organization, Contact: q.Contact, Mailbox: q.Mailbox, Wrong: q.Wrong,
	}}}
}

func toCodeQuestion(t *localv1.CodeTask) enroll.CodeQuestion {
	return enroll.CodeQuestion{
		ID: enroll.ID(t.GetEnrollmentId()), Organization: t.GetOrganization(), Contact: t.GetContact(),
		Mailbox: t.GetMailbox(), Wrong: t.GetWrong(),
	}
}

func notifyTask(n enroll.Notice) *localv1.Task {
	return &localv1.Task{What: &localv1.Task_Notify{Notify: &localv1.NotifyTask{
		EnrollmentId: string(n.ID), Code: string(n.Code), Organization: n.Organization, Contact: n.Contact, Mailbox: n.Mailbox,
		ProgramsAsk: n.ProgramsAsk,
	}}}
}

func toNotice(t *localv1.NotifyTask) enroll.Notice {
	return enroll.Notice{
		ID: enroll.ID(t.GetEnrollmentId()), Code: enroll.NoticeCode(t.GetCode()), Organization: t.GetOrganization(),
		Contact: t.GetContact(), Mailbox: t.GetMailbox(), ProgramsAsk: t.GetProgramsAsk(),
	}
}

func fromInventory(i enroll.Inventory) *localv1.InventoryResult {
	made := &localv1.InventoryResult{}
	for _, s := range i.Stores {
		made.Stores = append(made.Stores, &localv1.StoreFound{
			Name: s.Name, Protection: s.Protection, Algorithms: s.Algorithms, Consumers: s.Consumers, CostlyKeys: s.CostlyKeys,
		})
	}
	for _, k := range i.Keys {
		made.Keys = append(made.Keys, &localv1.KeyFound{
			EnrollmentId: string(k.ID), Store: k.Store, PublicKey: k.PublicKey, Chain: k.Chain, Created: fromTime(k.Created),
		})
	}
	for _, f := range i.Failures {
		made.Failures = append(made.Failures, fromError(f))
	}
	return made
}

func toInventory(r *localv1.InventoryResult) enroll.Inventory {
	var i enroll.Inventory
	for _, s := range r.GetStores() {
		i.Stores = append(i.Stores, enroll.StoreFound{
			Name: plain(s.GetName()), Protection: plain(s.GetProtection()),
			Algorithms: plainAll(s.GetAlgorithms()), Consumers: plainAll(s.GetConsumers()), CostlyKeys: s.GetCostlyKeys(),
		})
	}
	for _, k := range r.GetKeys() {
		i.Keys = append(i.Keys, enroll.KeyFound{
			ID: enroll.ID(plain(k.GetEnrollmentId())), Store: plain(k.GetStore()), PublicKey: k.GetPublicKey(),
			Chain: k.GetChain(), Created: toTime(k.GetCreated()),
		})
	}
	for _, f := range r.GetFailures() {
		i.Failures = append(i.Failures, toError(f))
	}
	return i
}
