package enroll

import (
	"context"
	"time"
)

// noticeTimeout bounds a notice: nobody waits for it.
const noticeTimeout = time.Minute

type notice struct {
	user string
	what Notice
}

// notify files a notice; it goes out with the next look and may be lost, since
// the status says the same. In silent mode nobody is told. Callers hold mu.
func (g *Engine) notify(e Enrollment, code NoticeCode) {
	if e.Assignment.Consent == ConsentSilent || g.told[e.ID] == code {
		return
	}
	g.told[e.ID] = code
	g.notices = append(g.notices, notice{e.Assignment.User, Notice{
		ID: e.ID, Code: code, Organization: g.policy.Organization, Contact: g.policy.Contact, Mailbox: e.Mailbox(),
		ProgramsAsk: g.programsAsk(e),
	}})
}

// notifyActive tells of a first certificate. Of a renewal nobody is told, unless
// mail programs will now ask for its key: else it is nothing that a person must
// know.
func (g *Engine) notifyActive(e Enrollment) {
	switch {
	case e.Reason == ReasonAdopted:
	case e.Replaces == "":
		g.notify(e, NoticeEnrolled)
	case g.programsAsk(e):
		g.notify(e, NoticeRenewed)
	}
}

// tellEnding warns of a certificate in use that ends soon although it should
// have been renewed long ago.
func (g *Engine) tellEnding(now time.Time) {
	for _, n := range g.order {
		e := n.e
		if e.State == Active && !e.Unwanted && now.After(e.NotAfter.Add(-g.Timing.EndingWithin)) {
			g.notify(e, NoticeEnding)
		}
	}
}

// sendNotices hands filed notices to the sessions that are there.
func (g *Engine) sendNotices(ctx context.Context) {
	all := g.notices
	g.notices = nil
	for _, m := range all {
		s, ok := g.Sessions.Session(m.user)
		if !ok {
			continue
		}
		g.start(ctx, job{do: func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, noticeTimeout)
			defer cancel()
			if err := s.Notify(ctx, m.what); err != nil {
				g.Log.Info("notice not shown", "user", m.user, "enrollment", m.what.ID, "error", err.Error())
			}
		}}, g.now())
	}
}
