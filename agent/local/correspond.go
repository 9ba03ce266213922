package local

import (
	"smime-agent/agent/enroll"
	localv1 "smime-agent/proto/local/v1"
)

// maxPublication is the contract's bound on a value for the directory, in bytes.
const maxPublication = 32 << 10

func publishTask(w enroll.PublishWanted) *localv1.Task {
	return &localv1.Task{What: &localv1.Task_Publish{Publish: &localv1.PublishTask{
		EnrollmentId: string(w.ID), Store: w.Store, Chain: w.Chain, EncryptTo: w.EncryptTo,
		Modules: fromModules(w.Modules), Now: fromTime(w.Now),
	}}}
}

func toPublishWanted(t *localv1.PublishTask) enroll.PublishWanted {
	return enroll.PublishWanted{
		ID: enroll.ID(t.GetEnrollmentId()), Store: t.GetStore(), Chain: t.GetChain(), EncryptTo: t.GetEncryptTo(),
		Modules: toModules(t.GetModules()), Now: toTime(t.GetNow()),
	}
}

func partnersTask(certificates [][]byte) *localv1.Task {
	return &localv1.Task{What: &localv1.Task_Partners{Partners: &localv1.PartnersTask{Certificates: certificates}}}
}

func fromPartnersFiled(p enroll.PartnersFiled) *localv1.PartnersResult {
	r := &localv1.PartnersResult{Filed: uint32(max(0, p.Filed)), Withdrawn: uint32(max(0, p.Withdrawn))}
	for _, f := range p.Failures {
		r.Failures = append(r.Failures, fromError(f))
	}
	return r
}

// maxFailures bounds what a session may say failed.
const maxFailures = 64

func toPartnersFiled(r *localv1.PartnersResult) enroll.PartnersFiled {
	p := enroll.PartnersFiled{Filed: int(r.GetFiled()), Withdrawn: int(r.GetWithdrawn())}
	for _, f := range r.GetFailures()[:min(len(r.GetFailures()), maxFailures)] {
		p.Failures = append(p.Failures, toError(f))
	}
	return p
}
