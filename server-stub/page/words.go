package page

import (
	"html/template"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/sheet"
)

func languages() []string { return []string{"en", "zh"} }

// languageOf follows the address first, then the browser's first wish.
func languageOf(r *http.Request) string {
	if wish := r.URL.Query().Get("lang"); wish == "en" || wish == "zh" {
		return wish
	}
	if strings.HasPrefix(strings.ToLower(strings.TrimSpace(r.Header.Get("Accept-Language"))), "zh") {
		return "zh"
	}
	return "en"
}

// words are the page's texts: English and Chinese.
func words() map[string][2]string {
	return map[string][2]string{
		"title": {"S/MIME certificates", "S/MIME 证书"}, "coverage": {"Coverage", "覆盖情况"}, "devices": {"Devices", "设备"},
		"other": {"中文", "English"}, "asOf": {"As of", "截至"}, "utc": {"UTC", "UTC"},
		"people": {"People", "人员"}, "wanted": {"Wanted", "应有"}, "department": {"Department", "部门"}, "total": {"Total", "合计"},
		"proved": {"Proved", "已验证"}, "unproved": {"Issued, not proved", "已签发未验证"}, "waiting": {"Under way", "进行中"},
		"refused": {"Refused", "已拒绝"}, "missing": {"Missing", "缺失"}, "ending": {"Ending soon", "即将到期"},
		"silentMachines": {"Silent machines", "失联设备"}, "ofMachines": {"of %d", "共 %d"},
		"byDepartment": {"By department", "按部门"}, "endingByWeek": {"Certificates that end, by week from now", "按周统计即将到期的证书"},
		"gaps": {"Who has no proved certificate", "尚无已验证证书的人员"}, "nobody": {"Nobody. All that is wanted is proved.", "没有。所有应有证书均已验证。"},
		"nothing": {"Policy gives nobody a certificate.", "策略未向任何人分配证书。"},
		"more":    {"%d more; the CSV has all", "另有 %d 项；CSV 文件包含全部"}, "moreSilent": {"%d more; the {command} command shows all", "另有 %d 台；{command} 命令可显示全部"}, "account": {"Account", "账户"}, "name": {"Name", "姓名"},
		"mailbox": {"Mailbox", "邮箱"}, "profile": {"Type", "类型"}, "state": {"State", "状态"}, "cause": {"Cause", "原因"}, "host": {"Computer", "计算机"},
		"ends": {"Ends", "到期"}, "lastContact": {"Last contact (UTC)", "最近联系 (UTC)"}, "system": {"System", "系统"}, "agent": {"Agent", "代理版本"},
		"credentials": {"Credentials", "凭证"}, "problems": {"Problems", "问题"}, "search": {"Search", "搜索"},
		"searchHint": {"computer, account, mailbox", "计算机、账户、邮箱"}, "onlyProblems": {"only with problems", "仅显示有问题的"},
		"onlySilent": {"only silent for 7 days", "仅显示 7 天无联系的"}, "any": {"any state", "任何状态"}, "admitted": {"admitted", "已接纳"},
		"pending": {"waiting", "等待中"}, "removed": {"removed", "已移除"}, "next": {"Next page", "下一页"}, "none": {"No device fits.", "没有符合条件的设备。"}, "noneYet": {"No device fits so far.", "目前尚未找到符合条件的设备。"},
		"csvPeople": {"People (CSV)", "人员 (CSV)"}, "csvDepartments": {"Departments (CSV)", "部门 (CSV)"}, "json": {"All (JSON)", "全部 (JSON)"},
		"readOnly": {"This page only shows. Changes are made with the {command} command.", "本页面仅供查看。更改请使用 {command} 命令。"},
		"noSilent": {"None.", "无。"},
	}
}

// functions are what the templates call; command is how this program is called.
func functions(language, command string) template.FuncMap {
	column := 0
	if language == "zh" {
		column = 1
	}
	texts := words()
	return template.FuncMap{
		// A word without a text shows itself: states and codes of a newer version.
		"t": func(key string) string {
			if text, ok := texts[key]; ok {
				return strings.ReplaceAll(text[column], "{command}", command)
			}
			return key
		},
		"day":    func(t *timestamppb.Timestamp) string { return format(t, time.DateOnly) },
		"minute": func(t *timestamppb.Timestamp) string { return format(t, "2006-01-02 15:04") },
		"percent": func(r *controlv1.CoverageRow) uint32 {
			return sheet.Percent(r)
		},
		"problems": func(d *controlv1.Device) (out []*controlv1.ConditionReport) {
			for _, c := range d.GetConditions() {
				if c.GetSeverity() != "info" {
					out = append(out, c)
				}
			}
			return out
		},
	}
}

func format(t *timestamppb.Timestamp, layout string) string {
	if t == nil || t.AsTime().IsZero() {
		return "–"
	}
	return t.AsTime().UTC().Format(layout)
}
