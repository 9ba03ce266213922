package platformtest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"smime-agent/platform"
)

// MailProgram is a mail program in memory with fault injection. It keeps its
// accounts as text, as real programs do, so that what is kept byte for byte can
// be compared.
type MailProgram struct {
	Word, Title string
	// Fail, if set, may refuse an operation ("accounts", "settings", "apply", "undo").
	Fail func(op string) error

	mu       sync.Mutex
	accounts []*memoryAccount
	running  bool
	writes   int
}

var _ platform.MailProgram = (*MailProgram)(nil)

// Add gives the program an account.
func (p *MailProgram) Add(info platform.MailAccountInfo, set platform.MailSettings) {
	p.mu.Lock()
	defer p.mu.Unlock()
	info.Title = p.Title
	p.accounts = append(p.accounts, &memoryAccount{program: p, info: info, set: set})
}

// Change is a person who sets something in the program.
func (p *MailProgram) Change(id string, change func(*platform.MailSettings)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.accounts {
		if a.info.ID == id {
			change(&a.set)
		}
	}
}

// Run starts or closes the program.
func (p *MailProgram) Run(running bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = running
}

// Manage has other management hold a setting of an account; empty lets go.
func (p *MailProgram) Manage(id string, s platform.MailSetting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.accounts {
		if a.info.ID == id {
			a.managed = s
		}
	}
}

// Bytes is what the program keeps of these accounts; of all, if none is named.
func (p *MailProgram) Bytes(ids ...string) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []any
	for _, a := range p.accounts {
		if len(ids) == 0 || slices.Contains(ids, a.info.ID) {
			all = append(all, a.info.ID, a.set)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		panic(err) // unreachable: plain data
	}
	return text
}

// Writes is how often anything was written.
func (p *MailProgram) Writes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.writes
}

// Name is [platform.MailProgram]'s.
func (p *MailProgram) Name() string { return p.Word }

func (p *MailProgram) fault(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.Fail == nil {
		return nil
	}
	return p.Fail(op)
}

// Accounts is [platform.MailProgram]'s.
func (p *MailProgram) Accounts(ctx context.Context, mailbox string) ([]platform.MailAccount, error) {
	if err := p.fault(ctx, "accounts"); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []platform.MailAccount
	for _, a := range p.accounts {
		if strings.EqualFold(a.info.Mailbox, mailbox) {
			found = append(found, a)
		}
	}
	return found, nil
}

type memoryAccount struct {
	program *MailProgram
	info    platform.MailAccountInfo
	set     platform.MailSettings
	former  *platform.MailSettings
	managed platform.MailSetting
}

func (a *memoryAccount) Info() platform.MailAccountInfo { return a.info }

func (a *memoryAccount) Settings(ctx context.Context) (platform.MailSettings, error) {
	if err := a.program.fault(ctx, "settings"); err != nil {
		return platform.MailSettings{}, err
	}
	a.program.mu.Lock()
	defer a.program.mu.Unlock()
	return a.set, nil
}

func (a *memoryAccount) Apply(ctx context.Context, want platform.MailSettings) (bool, error) {
	if err := a.program.fault(ctx, "apply"); err != nil {
		return false, err
	}
	a.program.mu.Lock()
	defer a.program.mu.Unlock()
	differing := a.settable(a.set.Differing(want))
	switch {
	case len(differing) == 0:
		return false, nil
	case slices.Contains(differing, a.managed):
		return false, fmt.Errorf("%s of %s: %w", a.managed, a.info.ID, platform.ErrManaged)
	case a.program.running:
		return false, fmt.Errorf("%s: %w", a.info.ID, platform.ErrBusy)
	}
	if a.former == nil {
		former := a.set
		a.former = &former
	}
	for _, s := range differing {
		copySetting(s, want, &a.set)
	}
	a.program.writes++
	return false, nil
}

// settable leaves out what cannot be set here.
func (a *memoryAccount) settable(all []platform.MailSetting) []platform.MailSetting {
	var list []platform.MailSetting
	for _, s := range all {
		if !slices.Contains(a.info.ByHand, s) && !slices.Contains(a.info.Fixed, s) {
			list = append(list, s)
		}
	}
	return list
}

func copySetting(s platform.MailSetting, from platform.MailSettings, to *platform.MailSettings) {
	switch s {
	case platform.MailSigning:
		to.Signing = from.Signing
	case platform.MailEncryption:
		to.Encryption = from.Encryption
	case platform.MailSign:
		to.Sign = from.Sign
	case platform.MailEncrypt:
		to.Encrypt = from.Encrypt
	case platform.MailClearSign:
		to.ClearSign = from.ClearSign
	case platform.MailHash:
		to.Hash = from.Hash
	case platform.MailCipher:
		to.Cipher = from.Cipher
	}
}

func (a *memoryAccount) Undo(ctx context.Context) error {
	if err := a.program.fault(ctx, "undo"); err != nil {
		return err
	}
	a.program.mu.Lock()
	defer a.program.mu.Unlock()
	switch {
	case a.former == nil:
		return nil
	case a.program.running:
		return fmt.Errorf("%s: %w", a.info.ID, platform.ErrBusy)
	}
	a.set, a.former = *a.former, nil
	a.program.writes++
	return nil
}
