package publication

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/directory"
	"smime-agent/server-stub/store"
)

// listPart is how many publications one message carries.
const listPart = 100

// List gives every mailbox that has, or had, a certificate to encrypt to. Where the
// directory is to be brought up to date first: [ErrNoDirectory], and as [Desk.Pass].
func (d *Desk) List(ctx context.Context, req *controlv1.ListPublicationsRequest, send func(*controlv1.ListPublicationsResponse) error) error {
	if req.GetNow() {
		if d.Dial == nil {
			return ErrNoDirectory
		}
		if err := d.again(ctx); err != nil {
			return err
		}
		if err := d.Pass(ctx); err != nil {
			return err
		}
	}
	wishes, err := d.wishes(req.GetMatches())
	if err != nil {
		return err
	}
	part := &controlv1.ListPublicationsResponse{}
	for _, w := range wishes {
		part.Publications = append(part.Publications, d.wire(w, req.GetWithValues()))
		if len(part.GetPublications()) == listPart {
			if err := send(part); err != nil {
				return err
			}
			part = &controlv1.ListPublicationsResponse{}
		}
	}
	if len(part.GetPublications()) == 0 {
		return nil
	}
	return send(part)
}

// again makes everything due: the directory itself is looked at, not what is
// known of it.
func (d *Desk) again(ctx context.Context) error {
	var from []byte
	for {
		var next []byte
		err := d.Store.Update(ctx, func(tx store.Tx) error {
			due := map[string]filed{}
			next = nil
			err := store.EachJSON(tx, store.Directory, from, func(mailbox []byte, f filed) bool {
				if len(due) == storePart {
					next = append([]byte(nil), mailbox...)
					return false
				}
				f.Next = d.Now()
				due[string(mailbox)] = f
				return true
			})
			for mailbox, f := range due {
				err = errors.Join(err, store.PutJSON(tx, store.Directory, []byte(mailbox), f))
			}
			return err
		})
		if err != nil || next == nil {
			return err
		}
		from = next
	}
}

func (d *Desk) wire(w *wish, values bool) *controlv1.Publication {
	p := &controlv1.Publication{
		Mailbox: w.mailbox, State: w.before.State, Problem: w.before.Problem, Dn: w.before.DN, Signed: len(w.signed) > 0,
	}
	if !w.before.Seen.IsZero() {
		p.Seen = timestamppb.New(w.before.Seen)
	}
	if w.chosen != nil {
		p.Serial, p.NotAfter, p.Hostname = w.chosen.serial, timestamppb.New(w.chosen.ends), w.chosen.hostname
	}
	if values && w.chosen != nil {
		p.Chain, p.Value = append([][]byte{w.request.Certificate}, d.Issuers(w.request)...), w.signed
	}
	d.state(w, p)
	return p
}

// state says what is true now, where that is not what the last look found.
func (d *Desk) state(w *wish, p *controlv1.Publication) {
	d.mu.Lock()
	trouble := d.trouble
	d.mu.Unlock()
	changed := string(w.before.Wish) != string(w.digest())
	switch {
	case d.Dial == nil:
		p.State, p.Problem = NoDirectory, ""
	case w.chosen == nil && w.list[0].usable:
		p.State, p.Problem = Waiting, "No machine has proved yet that it decrypts; see ledger."
	case changed:
		p.State, p.Problem = Waiting, trouble
	case p.GetState() != directory.Published && p.GetState() != directory.Withdrawn:
		p.NextTry = timestamppb.New(w.before.Next)
	}
}
