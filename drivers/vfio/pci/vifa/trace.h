/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vifa

#if !defined(_VIFA_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _VIFA_TRACE_H

#include <linux/device.h>
#include <linux/tracepoint.h>
#include <uapi/linux/vifa.h>

/*
 * A device has become a party of a transfer relationship. The output party
 * offers the relationship, the receiver has verified it.
 */
TRACE_EVENT(vifa_relation,
	    TP_PROTO(const struct device *device, u8 role, u8 plane, u64 output, u64 receiver),
	    TP_ARGS(device, role, plane, output, receiver),
	    TP_STRUCT__entry(__string(device, dev_name(device))
			     __field(u8, role)
			     __field(u8, plane)
			     __field(u64, output)
			     __field(u64, receiver)),
	    TP_fast_assign(__assign_str(device);
			   __entry->role = role;
			   __entry->plane = plane;
			   __entry->output = output;
			   __entry->receiver = receiver;),
	    TP_printk("%s: %s of the %s plane: %#llx -> %#llx", __get_str(device),
		      __print_symbolic(__entry->role,
				       { VIFA_ROLE_OUTPUT, "output party" },
				       { VIFA_ROLE_RECEIVER, "receiver" }),
		      __print_symbolic(__entry->plane,
				       { VIFA_PLANE_CONTROL, "control" },
				       { VIFA_PLANE_DATA, "data" }),
		      __entry->output, __entry->receiver)
);

#endif /* _VIFA_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
