package service

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"smime-agent/agent/config"
	"smime-agent/platform"
)

// handedToken names the secret in which a token waits that an installer handed
// over, until this machine has joined.
const handedToken = "join-token"

// takeHandover takes the join token that an installer left where nothing should
// stay. From then on it lies sealed among the service's secrets.
func (s *Service) takeHandover() {
	if s.options.Handover == nil {
		return
	}
	ctx := context.Background() // it is not given up halfway
	taken := false
	err := s.options.Handover(func(h platform.Handover) error {
		if h.Exposed {
			s.log.Warn("join token could be read by other users until now; revoke it if that matters here")
		}
		taken = true
		return s.secrets.Put(ctx, handedToken, []byte(h.Text))
	})
	if err != nil && !errors.Is(err, platform.ErrNotFound) {
		s.log.Error("join token not taken from the installer", "error", err)
	}
	if !taken || err != nil {
		return
	}
	s.mu.Lock()
	s.failures = 0
	s.mu.Unlock()
	s.log.Info("join token taken from the installer")
	s.event(eventTokenTaken, outcomeSuccess)
	s.pokeContact()
}

// token is the join token, if there is one. What the settings say wins over what
// the installer was told.
func (s *Service) token() string {
	settings := s.current()
	if settings.JoinToken != "" {
		return settings.JoinToken.Reveal()
	}
	if token := s.fileToken(settings.JoinTokenFile); token != "" {
		return token
	}
	token, err := s.secrets.Get(context.Background(), handedToken)
	if err != nil && !errors.Is(err, platform.ErrNotFound) {
		s.log.Error("join token not read", "error", err)
	}
	return string(token)
}

func (s *Service) fileToken(path string) string {
	if path == "" {
		s.tokenless("Neither join_token_file nor join_token is set.")
		return ""
	}
	token, err := config.ReadSecretFile(path)
	if err != nil {
		s.tokenless(fileFault("join_token_file", path, secretFile, err))
	}
	if err != nil && !errors.Is(err, platform.ErrNotFound) { // once it has done its work it is gone
		s.log.Error("join token not read", "file", path, "error", err)
	}
	return token.Reveal()
}

// tokenless remembers why there is no join token, for the case that one is needed.
func (s *Service) tokenless(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noToken = why
}

// forgetHandedToken removes what the installer handed over: a machine that has
// joined needs it no more.
func (s *Service) forgetHandedToken() {
	if s.options.Handover == nil {
		return
	}
	if err := s.secrets.Delete(context.Background(), handedToken); err != nil {
		s.log.Error("join token not removed", "error", err)
	}
}

// forgetToken removes the join token's file once it has done its work. A token
// that stands in settings is the administrator's to remove.
func (s *Service) forgetToken() {
	file := s.current().JoinTokenFile
	if file == "" {
		return
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("join token not removed", "file", file, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = fileStamps(s.settings) // that it is gone is no change of settings
}
