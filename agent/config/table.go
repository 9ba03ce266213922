package config

import (
	"time"

	"smime-agent/platform"
)

// Type is how a setting is written.
type Type string

// The types.
const (
	Text     Type = "string"
	Bool     Type = "bool"
	Duration Type = "duration"
	Int      Type = "int"
	Path     Type = "path"
	List     Type = "list"
	Hidden   Type = "secret"
)

// Setting declares one setting.
type Setting struct {
	Name string
	// Title and TitleZH name it where an administrator sees a list of all.
	Title, TitleZH string

	Type    Type
	Default string
	// Since is the first version that knows it.
	Since string
	// Help and HelpZH say what it is for, in English and Chinese.
	Help, HelpZH string
	// Options are the words that may be written, if there are only some.
	Options []string
	// Visible and Restart are as in [Value].
	Visible, Restart bool

	put putter
}

// Table lists every setting, in the order of the documentation.
func Table() []Setting {
	p := platform.SystemPaths()
	var all []Setting
	for _, part := range [][]Setting{serverSettings(), proxySettings(), placeSettings(p), paceSettings(), peopleSettings()} {
		all = append(all, part...)
	}
	return all
}

func serverSettings() []Setting {
	return []Setting{
		{Name: "server", Title: "Central management", TitleZH: "集中管理服务器", Type: Text, Since: "0.1", Visible: true,
			Help:   "Central management as `host:port`. Until it is set, the agent waits for it.",
			HelpZH: "集中管理服务器，写作 `主机:端口`。未设置时，代理程序会一直等待。",
			put:    text(func(s *Settings) *string { return &s.Server }, hostPort)},
		{Name: "server_ca", Title: "CA file of central management", TitleZH: "服务器 CA 证书文件", Type: Path, Since: "0.1", Visible: true,
			Help:   "PEM file with the certificate of the authority that the server's certificate must come from. This or `server_pin` is needed: the agent never trusts a server on first use.",
			HelpZH: "PEM 文件，内含签发服务器证书的 CA 证书。此项与 `server_pin` 至少需设一项：代理程序从不“首次使用即信任”。",
			put:    text(func(s *Settings) *string { return &s.ServerCA }, absolute)},
		{Name: "server_pin", Title: "Pinned keys of central management", TitleZH: "固定的服务器公钥", Type: List, Since: "0.1", Visible: true,
			Help:   "Accepted public keys of the server or of an issuer in its chain, each `sha256/` with the Base64 of the SHA-256 of its SubjectPublicKeyInfo; several as a list or with commas.",
			HelpZH: "可接受的公钥（服务器证书或其链中某一签发者的公钥），每项为 `sha256/` 加 SubjectPublicKeyInfo 的 SHA-256 的 Base64；多项可写成列表或以逗号分隔。",
			put:    putPins},
		{Name: "join_token", Title: "Join token", TitleZH: "加入令牌", Type: Hidden, Since: "0.1",
			Help:   "Token with which the machine joins. Only accepted from where no other user can read it. The agent cannot take it out after joining: do that yourself, or use `join_token_file`, over which this wins.",
			HelpZH: "本机加入时使用的令牌。仅当其他用户无法读取其来源时才接受。加入后代理程序无法将其移除，请自行移除，或改用 `join_token_file`；两者都有时以此项为准。",
			put:    putToken},
		{Name: "join_token_file", Title: "Join token file", TitleZH: "加入令牌文件", Type: Path, Since: "0.1",
			Help:   "File with the join token, readable for the service only. It is removed after joining.",
			HelpZH: "存放加入令牌的文件，仅服务可读。加入后该文件会被删除。",
			put:    text(func(s *Settings) *string { return &s.JoinTokenFile }, absolute)},
	}
}

func proxySettings() []Setting {
	return []Setting{
		{Name: "proxy", Title: "Proxy", TitleZH: "代理服务器", Type: Text, Default: string(ProxySystem), Since: "0.1", Visible: true,
			Help:   "Proxy on the way to the server: `none`, a URL such as `http://proxy.example:3128`, or `system` for what the service's environment says.",
			HelpZH: "连接服务器所用的代理服务器：`none`（不用）、形如 `http://proxy.example:3128` 的 URL，或 `system`（按服务的环境变量）。",
			put:    putProxy},
		{Name: "proxy_user", Title: "Proxy user", TitleZH: "代理用户名", Type: Text, Since: "0.1",
			Help:   "Name for a proxy that wants one; its password is in `proxy_password_file`.",
			HelpZH: "代理服务器要求认证时的用户名；密码放在 `proxy_password_file` 中。",
			put:    text(func(s *Settings) *string { return &s.ProxyUser }, oneLine)},
		{Name: "proxy_password_file", Title: "Proxy password file", TitleZH: "代理密码文件", Type: Path, Since: "0.1",
			Help:   "File with the proxy's password, readable for the service only.",
			HelpZH: "存放代理服务器密码的文件，仅服务可读。",
			put:    text(func(s *Settings) *string { return &s.ProxyPasswordFile }, absolute)},
	}
}

func placeSettings(p platform.Paths) []Setting {
	return []Setting{
		{Name: "state_dir", Title: "State folder", TitleZH: "状态文件夹", Type: Path, Default: p.State, Since: "0.1", Visible: true, Restart: true,
			Help:   "Folder of the service's record and secrets. Only the service may enter it.",
			HelpZH: "存放服务记录与机密的文件夹，仅服务可进入。",
			put:    text(func(s *Settings) *string { return &s.StateDir }, absolute)},
		{Name: "log_dir", Title: "Log folder", TitleZH: "日志文件夹", Type: Path, Default: p.Logs, Since: "0.1", Visible: true, Restart: true,
			Help:   "Folder of the service's logs.",
			HelpZH: "服务日志所在的文件夹。",
			put:    text(func(s *Settings) *string { return &s.LogDir }, absolute)},
		{Name: "address", Title: "Local address", TitleZH: "本机地址", Type: Text, Default: p.Address, Since: "0.1", Visible: true, Restart: true,
			Help:   "Where the service listens for this machine's users: a Unix socket or a named pipe, never a network port.",
			HelpZH: "服务为本机用户监听的地址：Unix 套接字或命名管道，绝不是网络端口。",
			put:    text(func(s *Settings) *string { return &s.Address }, localAddress)},
		{Name: "log_level", Title: "Log level", TitleZH: "日志级别", Type: Text, Default: "info", Since: "0.1", Visible: true, Options: []string{"debug", "info", "warn", "error"},
			Help:   "How much is logged. No level logs secrets.",
			HelpZH: "日志的详细程度。任何级别都不会记录机密。",
			put:    putLevel},
		{Name: "log_max_size_mb", Title: "Largest log file, in megabytes", TitleZH: "日志文件大小上限（兆字节）", Type: Int, Default: "10", Since: "0.1", Visible: true, Restart: true,
			Help:   "Size in megabytes at which a new log file is begun.",
			HelpZH: "日志文件达到多少兆字节时另起新文件。",
			put:    number(func(s *Settings) *int { return &s.LogMaxSizeMB }, 1, 1000)},
		{Name: "log_max_files", Title: "Old log files kept", TitleZH: "保留的旧日志文件数", Type: Int, Default: "5", Since: "0.1", Visible: true, Restart: true,
			Help:   "How many old log files are kept.",
			HelpZH: "保留多少个旧日志文件。",
			put:    number(func(s *Settings) *int { return &s.LogMaxFiles }, 1, 100)},
	}
}

const day = 24 * time.Hour

func paceSettings() []Setting {
	return []Setting{
		{Name: "sync_floor", Title: "Shortest time between two calls", TitleZH: "两次联系的最短间隔", Type: Duration, Default: "10s", Since: "0.1", Visible: true,
			Help:   "Shortest time between two contacts with the server in the long run, even if it wants more; a dozen may follow each other at once.",
			HelpZH: "两次联系服务器之间的最短间隔，即使服务器要求更频繁；短时间内可连续联系十余次。",
			put:    interval(func(s *Settings) *time.Duration { return &s.SyncFloor }, time.Second, day)},
		{Name: "retry_cap", Title: "Longest wait between attempts", TitleZH: "重试的最长等待", Type: Duration, Default: "30m", Since: "0.1", Visible: true, Restart: true,
			Help:   "Longest wait between two attempts of what did not work.",
			HelpZH: "失败后两次重试之间的最长等待时间。",
			put:    interval(func(s *Settings) *time.Duration { return &s.RetryCap }, time.Second, day)},
		{Name: "proof_interval", Title: "Time between proofs", TitleZH: "验证间隔", Type: Duration, Default: "24h", Since: "0.1", Visible: true, Restart: true,
			Help:   "How often each credential is proved to work.",
			HelpZH: "每隔多久验证一次每个证书及其私钥确实可用。",
			put:    interval(func(s *Settings) *time.Duration { return &s.ProofInterval }, time.Minute, 30*day)},
		{Name: "self_check", Title: "Time between self-checks", TitleZH: "自检间隔", Type: Duration, Default: "15m", Since: "0.1", Visible: true, Restart: true,
			Help:   "How often the service asks itself for its status. If it does not answer twice, it ends, and the system starts it again.",
			HelpZH: "服务每隔多久查询一次自身的状态。若连续两次没有应答，服务会自行结束，并由系统重新启动。",
			put:    interval(func(s *Settings) *time.Duration { return &s.SelfCheck }, 10*time.Second, day)},
	}
}

func peopleSettings() []Setting {
	return []Setting{
		{Name: "organization", Title: "Organization", TitleZH: "组织名称", Type: Text, Since: "0.1", Visible: true,
			Help:   "Name of the organization that people see until policy brings one.",
			HelpZH: "在策略给出名称之前，向员工显示的组织名称。",
			put:    text(func(s *Settings) *string { return &s.Organization }, oneLine)},
		{Name: "prompt_timeout", Title: "How long a question stays", TitleZH: "提示停留时间", Type: Duration, Default: "1h", Since: "0.1", Visible: true, Restart: true,
			Help:   "How long a question stays on the screen. Nobody answering is no \"later\": it is asked again some hours later.",
			HelpZH: "询问在屏幕上停留多久。无人答复不计为“稍后”，数小时后会再次询问。",
			put:    interval(func(s *Settings) *time.Duration { return &s.PromptTimeout }, 10*time.Second, day)},
		{Name: "show_notices", Title: "Show notices", TitleZH: "显示通知", Type: Bool, Default: "true", Since: "0.1", Visible: true,
			Help:   "Whether people see notices that need no answer, such as \"renewed\". Questions are always shown.",
			HelpZH: "是否向员工显示无需回答的通知（如“已续期”）。需要回答的询问始终显示。",
			put:    boolean(func(s *Settings) *bool { return &s.ShowNotices })},
	}
}
