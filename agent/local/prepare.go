package local

import (
	"context"
	"slices"

	"smime-agent/agent/enroll"
	localv1 "smime-agent/proto/local/v1"
)

// maxMailAccounts bounds what a session may say of its mail programs.
const maxMailAccounts = 64

// Prepare is [enroll.Keeper]'s.
func (r *remote) Prepare(ctx context.Context, w enroll.PrepareWanted) ([]enroll.MailAccount, error) {
	result, err := r.call(ctx, storeLimit, prepareTask(w))
	if err != nil {
		return nil, err
	}
	made := result.GetPrepare()
	if made == nil || len(made.GetAccounts()) > maxMailAccounts {
		return nil, odd()
	}
	return toMailAccounts(made.GetAccounts())
}

// prepareTask: an undo is a task of its own, so that a helper that does not know
// it refuses it instead of preparing.
func prepareTask(w enroll.PrepareWanted) *localv1.Task {
	t := &localv1.PrepareTask{
		EnrollmentId: string(w.ID), Store: w.Store, Mailboxes: w.Mailboxes, Chain: w.Chain, Sign: w.Sign, Encrypt: w.Encrypt,
		Earlier: w.Earlier, Prepared: w.Prepared,
		Rule: &localv1.MailRule{
			Programs: w.Rule.Programs, Sign: string(w.Rule.Sign), Encrypt: string(w.Rule.Encrypt),
			ClearSign: string(w.Rule.ClearSign), Hash: w.Rule.Hash, Cipher: w.Rule.Cipher,
		},
	}
	if w.Undo {
		return &localv1.Task{What: &localv1.Task_Undo{Undo: t}}
	}
	return &localv1.Task{What: &localv1.Task_Prepare{Prepare: t}}
}

func toPrepareWanted(t *localv1.PrepareTask) enroll.PrepareWanted {
	r := t.GetRule()
	return enroll.PrepareWanted{
		ID: enroll.ID(t.GetEnrollmentId()), Store: t.GetStore(), Mailboxes: t.GetMailboxes(), Chain: t.GetChain(),
		Sign: t.GetSign(), Encrypt: t.GetEncrypt(), Earlier: t.GetEarlier(), Prepared: t.GetPrepared(),
		Rule: enroll.MailRule{
			Programs: r.GetPrograms(), Sign: enroll.MailWord(r.GetSign()), Encrypt: enroll.MailWord(r.GetEncrypt()),
			ClearSign: enroll.MailWord(r.GetClearSign()), Hash: r.GetHash(), Cipher: r.GetCipher(),
		},
	}
}

func fromMailAccounts(all []enroll.MailAccount) *localv1.PrepareResult {
	made := &localv1.PrepareResult{}
	for _, a := range all {
		made.Accounts = append(made.Accounts, &localv1.MailAccount{
			Program: a.Program, Title: wellFormed(a.Title), Id: wellFormed(a.ID), Mailbox: wellFormed(a.Mailbox), Store: wellFormed(a.Store),
			State: string(a.State), ByHand: a.ByHand, Own: a.Own, Detail: wellFormed(a.Detail), Changed: a.Changed,
		})
	}
	return made
}

// mailStates are the words that a session may say.
var mailStates = []enroll.MailState{
	enroll.MailReady, enroll.MailRestart, enroll.MailBusy, enroll.MailManaged, enroll.MailFailed, enroll.MailOtherStore, enroll.MailUndone,
}

func toMailAccounts(all []*localv1.MailAccount) ([]enroll.MailAccount, error) {
	var made []enroll.MailAccount
	for _, a := range all {
		state := enroll.MailState(a.GetState())
		if !slices.Contains(mailStates, state) {
			return nil, odd()
		}
		made = append(made, enroll.MailAccount{
			Program: plain(a.GetProgram()), Title: plain(a.GetTitle()), ID: plain(a.GetId()), Mailbox: plain(a.GetMailbox()),
			Store: plain(a.GetStore()), State: state, ByHand: plainAll(a.GetByHand()), Own: plainAll(a.GetOwn()),
			Detail: plain(a.GetDetail()), Changed: a.GetChanged(),
		})
	}
	return made, nil
}
