package service

import (
	"context"
	"fmt"
	"time"

	"smime-agent/agent/config"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/agent/text"
)

// Diagnose looks at the service, step by step.
func (s *Service) Diagnose(ctx context.Context) (status.Checks, error) {
	checks := status.Checks{Checks: []status.Check{
		s.checkSettings(), s.checkRecord(), s.checkSecrets(ctx), s.checkClock(), s.checkPolicy(), s.checkHelpers(),
	}}
	client, err := s.controlClient()
	if err != nil {
		e := enroll.AsError(err)
		checks.Checks = append(checks.Checks, status.Check{
			Name: "central-management", Detail: e.Hint, Cure: text.For(text.English).Explain(string(e.Code), text.About{}).Cure,
		})
		return checks, nil
	}
	for _, step := range client.Probe(ctx) {
		checks.Checks = append(checks.Checks, status.Check{
			Name: "central-management-" + step.Name, OK: step.OK, Detail: step.Detail, Cure: step.Cure,
		})
	}
	return checks, nil
}

func (s *Service) checkSettings() status.Check {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := status.Check{Name: "settings", OK: len(s.problems) == 0, Detail: "all settings can be used"}
	if !c.OK {
		c.Detail = fmt.Sprintf("%d settings cannot be used; the first: %s", len(s.problems), s.problems[0])
		c.Cure = "Correct it; `smime-agent policy` shows what is in force and where it comes from."
	}
	return c
}

func (s *Service) checkRecord() status.Check {
	generation, err := s.record.Generation()
	if err != nil {
		return status.Check{Name: "record", Detail: err.Error(),
			Cure: "Look at the disk and the rights of the state folder; a damaged record is set aside and rebuilt at the next start."}
	}
	return status.Check{Name: "record", OK: true, Detail: fmt.Sprintf("can be read, generation %d", generation)}
}

func (s *Service) checkSecrets(ctx context.Context) status.Check {
	const probe = "doctor"
	value := []byte(time.Now().Format(time.RFC3339Nano))
	err := s.secrets.Put(ctx, probe, value)
	if err == nil {
		var back []byte
		if back, err = s.secrets.Get(ctx, probe); err == nil && string(back) != string(value) {
			err = fmt.Errorf("read %d bytes, wrote %d", len(back), len(value))
		}
	}
	if removed := s.secrets.Delete(ctx, probe); err == nil {
		err = removed
	}
	if err != nil {
		return status.Check{Name: "secrets", Detail: err.Error(),
			Cure: "The device's identity cannot be kept. Look at the disk and the rights of the state folder."}
	}
	return status.Check{Name: "secrets", OK: true, Detail: "can be written and read"}
}

func (s *Service) checkClock() status.Check {
	s.mu.Lock()
	offset, compared := s.memory.Offset, !s.memory.Contact.IsZero()
	s.mu.Unlock()
	if !compared {
		return status.Check{Name: "clock", OK: true, Detail: "not yet compared with central management's"}
	}
	c := status.Check{Name: "clock", OK: offset.Abs() < 5*time.Minute,
		Detail: fmt.Sprintf("central management's clock is %s ahead of ours", offset.Round(time.Second))}
	if !c.OK {
		c.Cure = "Set the clock; until then the agent reckons with central management's."
	}
	return c
}

func (s *Service) checkPolicy() status.Check {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.policy == nil {
		return status.Check{Name: "policy", Detail: "none has arrived yet",
			Cure: "See the checks of central management; policy arrives with the first contact."}
	}
	return status.Check{Name: "policy", OK: true,
		Detail: fmt.Sprintf("revision %s, %d assignments", s.policy.Revision, len(s.policy.Assignments))}
}

func (s *Service) checkHelpers() status.Check {
	present := s.sessions.Present()
	if len(present) == 0 {
		// The service does not know who is logged in without a helper.
		return status.Check{Name: "helpers", OK: true, Detail: "none attached: nobody is logged in, or smime-helper does not run in his session"}
	}
	return status.Check{Name: "helpers", OK: true, Detail: fmt.Sprintf("%d attached", len(present))}
}

// origin says where a value comes from, as people read it.
func origin(v config.Value) string {
	if v.Where == "" {
		return string(v.Source)
	}
	return string(v.Source) + " " + v.Where
}

// Settings gives what is in force.
func (s *Service) Settings(context.Context) (status.Settings, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out status.Settings
	problems := map[string]string{}
	for _, p := range s.problems {
		problems[p.Setting] = p.String()
	}
	for _, v := range s.settings.Effective() {
		out.Settings = append(out.Settings, status.Setting{
			Name: v.Name, Value: v.Value, Source: origin(v), Problem: problems[v.Name], Private: !v.Visible,
		})
	}
	return out, nil
}
