/** What the platform's API answers, as far as it is shown here. */

export interface IStatus {
  phase: string;
  reason: string;
  message: string;
  since: string | null;
  next_step: string;
}

export interface IResource<Spec, Status extends IStatus> {
  id: string;
  kind: string;
  name: string;
  tenant: string;
  owner: string;
  version: number;
  created_at: string;
  spec: Spec;
  status: Status;
}

export interface IList<T> {
  items: T[];
  next: string | null;
}

export interface IMe {
  name: string;
  admin: boolean;
  tenants: { name: string; title: string; role: string }[];
  can_write: boolean;
}

export interface IWorkspaceStatus extends IStatus {
  url: string;
  page: string;
  progress: number | null;
  operation: { id: string; kind: string; step: string } | null;
  notice: string | null;
  actions: string[];
  // An older platform does not say these.
  /** What holds for as long as the platform is set up as it is. */
  notes?: string[];
  node?: string | null;
  amount?: { cpu_milli: number; memory_bytes: number; gpu_count: number };
  /** What to ask before an action, by action. */
  confirmations?: Record<string, string>;
}

export type Workspace = IResource<
  { desired: string; profile: string },
  IWorkspaceStatus
>;

export interface IStage {
  name: string;
  state: string;
  message: string;
  ms: number | null;
}

export interface IDatasetStatus extends IStatus {
  import: {
    id: string;
    phase: string;
    stage: string;
    stages: IStage[];
  } | null;
  as_of: string | null;
  rows: number | null;
  bytes: number | null;
  files: number | null;
  sample_rows: number | null;
  code: string;
}

export type Dataset = IResource<
  { description?: string; format?: string },
  IDatasetStatus
>;

export interface ISchema {
  columns: { name: string; type: string; nullable: boolean }[];
  partition_keys: string[];
  partitions: { count: number; newest: string[] } | null;
  as_of: string | null;
}

export interface ISample {
  columns: { name: string; type: string }[];
  rows: unknown[][];
  as_of: string | null;
}

export interface IJobStatus extends IStatus {
  attempt: number;
  position: number | null;
  parts: string[];
  /** What it was not given of what it asked for. */
  notice?: string;
  log_bytes: number;
}

export type Job = IResource<
  { kind: string; desired: string; workspace: string | null },
  IJobStatus
>;

/** The workspace that this JupyterLab is; the server extension puts it into the page. */
export interface IWorkspaceConfig {
  workspace: string;
  name: string;
  tenant: string;
  user: string;
  page: string;
}
