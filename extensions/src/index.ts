import {
  ILayoutRestorer,
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { PageConfig } from '@jupyterlab/coreutils';
import { INotebookTracker } from '@jupyterlab/notebook';
import { IStatusBar } from '@jupyterlab/statusbar';

import { Api } from './api';
import { addCommands } from './commands';
import { DataModel } from './data/model';
import { JobsModel } from './jobs/model';
import { TorporPanel } from './panel';
import { IWorkspaceConfig } from './resources';
import { WorkspaceModel } from './workspace/model';
import { StatusItem } from './workspace/status';

const PANEL_RANK = 150;
const STATUS_RANK = 50;

/** Panel, commands and status item; nothing outside of the platform. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: '@torpor/lab:plugin',
  description: 'The workspace, its data and its jobs.',
  autoStart: true,
  optional: [
    ICommandPalette,
    ILayoutRestorer,
    INotebookTracker,
    IStatusBar
  ],
  activate: (
    app: JupyterFrontEnd,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    notebooks: INotebookTracker | null,
    statusBar: IStatusBar | null
  ) => {
    const config = workspaceConfig();
    if (!config) {
      return;
    }
    const api = new Api(app.serviceManager.serverSettings);
    const models = {
      workspace: new WorkspaceModel(api, config),
      data: new DataModel(api),
      jobs: new JobsModel(api, config)
    };
    for (const command of addCommands({ app, api, models, notebooks })) {
      palette?.addItem({ command, category: 'Torpor' });
    }
    const panel = new TorporPanel(models, app.commands);
    app.shell.add(panel, 'left', { rank: PANEL_RANK });
    restorer?.add(panel, panel.id);
    statusBar?.registerStatusItem('torpor:workspace', {
      item: new StatusItem(models.workspace, app.commands),
      align: 'left',
      rank: STATUS_RANK
    });
  }
};

function workspaceConfig(): IWorkspaceConfig | null {
  const config: IWorkspaceConfig = JSON.parse(
    PageConfig.getOption('torpor') || '{}'
  );
  return config.workspace ? config : null;
}

export default plugin;
