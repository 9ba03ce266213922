package postgres

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

var passwordWord = regexp.MustCompile(`(?i)(^|\s)password\s*=`)

// parse makes the configuration of a connection. Errors say what to write instead
// and never repeat the text, which may have a password in it.
func parse(c Config) (*pgxpool.Config, error) {
	if hasPassword(c.DSN) {
		return nil, errors.New("store.postgres has a password in it; put it into a file of its own and name that in store.password_file")
	}
	config, err := pgxpool.ParseConfig(c.DSN)
	if err != nil {
		return nil, fmt.Errorf("store.postgres cannot be read: %w; write it as host=db.example.com dbname=smime user=smime sslmode=verify-full", err)
	}
	connect := config.ConnConfig
	if c.Password != "" {
		connect.Password = c.Password
	}
	if err := private(connect.Host, connect.TLSConfig); err != nil {
		return nil, err
	}
	for _, other := range connect.Fallbacks {
		if err := private(other.Host, other.TLSConfig); err != nil {
			return nil, err
		}
	}
	// In these the answers come as text, which [receive] does not read.
	if mode := connect.DefaultQueryExecMode; mode == pgx.QueryExecModeExec || mode == pgx.QueryExecModeSimpleProtocol {
		return nil, errors.New("store.postgres sets default_query_exec_mode for a pooler of transactions, and this server needs one of sessions; take it out")
	}
	if connect.ConnectTimeout == 0 || connect.ConnectTimeout > connectTime {
		connect.ConnectTimeout = connectTime
	}
	setParameters(connect.RuntimeParams)
	config.MaxConnIdleTime, config.PingTimeout = 5*time.Minute, connectTime
	return config, nil
}

// setParameters bounds how long a server that died or hangs can hold the others up.
func setParameters(params map[string]string) {
	for name, value := range map[string]string{
		"application_name":                    "server-stub",
		"idle_in_transaction_session_timeout": "10s",
		"statement_timeout":                   "30s",
		"lock_timeout":                        "15s",
		"tcp_keepalives_idle":                 "10",
		"tcp_keepalives_interval":             "5",
		"tcp_keepalives_count":                "3",
	} {
		if _, set := params[name]; !set {
			params[name] = value
		}
	}
}

func hasPassword(dsn string) bool {
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		u, err := url.Parse(dsn)
		if err != nil {
			return false // the next who reads it says so
		}
		_, set := u.User.Password()
		return set || u.Query().Has("password")
	}
	return passwordWord.MatchString(dsn)
}

// private refuses a way on which others could read along or answer in the
// database's place.
func private(host string, config *tls.Config) error {
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return nil
	}
	if config == nil || config.InsecureSkipVerify && config.VerifyPeerCertificate == nil && config.VerifyConnection == nil {
		return fmt.Errorf("store.postgres would talk to %s without checking who it is; add sslmode=verify-full and sslrootcert=FILE", host)
	}
	return nil
}
