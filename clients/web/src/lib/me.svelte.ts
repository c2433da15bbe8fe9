// Who we are to the control plane, and what we may therefore do.

import { Code, ConnectError } from "@connectrpc/connect";
import { Role } from "../gen/ccr_rpc/v1/access_pb";
import { access, WITHIN } from "./control";
import { word } from "./words";

class Me {
  name = $state("");
  role = $state<Role>(Role.UNSPECIFIED);
  version = $state("");
  /** Whether the control plane became another version since this page was loaded: the page is the old one's. */
  isUpdated = $state(false);

  async ask(signal: AbortSignal): Promise<void> {
    try {
      const answer = await access.whoAmI({}, { ...WITHIN, signal });
      this.name = answer.name;
      this.role = answer.role;
      this.isUpdated ||= this.version !== "" && this.version !== answer.softwareVersion;
      this.version = answer.softwareVersion;
    } catch (thrown) {
      if (ConnectError.from(thrown).code !== Code.Unimplemented) throw thrown;
      this.role = Role.ADMIN; // an older control plane: it decides at each call
    }
  }

  /** Why something is not for us; "" if it is. */
  refusal(needed: Role): string {
    if (this.role >= needed) return "";
    const has = this.role === Role.UNSPECIFIED ? "nobody knows yet who you are" : `your token "${this.name}" has the role ${word(Role, this.role)}`;
    return `This takes the role ${word(Role, needed)}; ${has}.`;
  }
}

export const me = new Me();
